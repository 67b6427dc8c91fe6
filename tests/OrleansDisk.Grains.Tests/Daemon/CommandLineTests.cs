using OrleansDisk.Grains.Tests.Fixtures;

namespace OrleansDisk.Grains.Tests.Daemon;

/// <summary>What odiskd says to a command line or a configuration that it can't use.</summary>
public sealed class CommandLineTests
{
    [Theory]
    [InlineData(64, "'disk.qcow2' is no option", "disk.qcow2")]
    [InlineData(64, "there is no option --sock", "--sock", "x")]
    [InlineData(64, "--unix needs a value", "--unix")]
    [InlineData(64, "--pool vm: the value is NAME=DIRECTORY", "--pool", "vm")]
    [InlineData(64, "--pool vm=/var: 'vm' is given twice", "--pool", "vm=/tmp", "--pool", "vm=/var")]
    [InlineData(78, "Pools: there is none; give --pool NAME=DIRECTORY", "--unix", "/tmp/s")]
    [InlineData(78, "Listen: there is no address to listen on", "--pool", "vm=/tmp")]
    [InlineData(78, "Pools:vm:Directory: there is no directory '/nowhere'", "--pool", "vm=/nowhere", "--unix", "/tmp/s")]
    [InlineData(78, "Pools:b:Directory: pool 'a' has the directory '/tmp' already", "--pool", "a=/tmp", "--pool", "b=/tmp/", "--unix", "/tmp/s")]
    [InlineData(78, "Pools:v/m: the name contains '/'", "--pool", "v/m=/tmp", "--unix", "/tmp/s")]
    [InlineData(78, "Listen:Tcp: '10809' is not HOST:PORT", "--pool", "vm=/tmp", "--tcp", "10809")]
    [InlineData(78, "Listen:Tcp: '::1:10809' is not HOST:PORT", "--pool", "vm=/tmp", "--tcp", "::1:10809")]
    [InlineData(78, "Exports:a:Image: 'vm/../x' is no image: the image's name begins with '.'", "--pool", "vm=/tmp", "--unix", "/tmp/s", "--export", "a=vm/../x")]
    [InlineData(78, "Exports:a:Image: there is no pool for 'nas/x'", "--pool", "vm=/tmp", "--unix", "/tmp/s", "--export", "a=nas/x")]
    [InlineData(78, "IdleTime: 'soon' is no time from 00:00:01", "--pool", "vm=/tmp", "--unix", "/tmp/s", "--set", "IdleTime=soon")]
    [InlineData(78, "MaxConnections: '0' is no number from 1 to 100000", "--pool", "vm=/tmp", "--unix", "/tmp/s", "--set", "MaxConnections=0")]
    [InlineData(78, "IdelTime: there is no such setting", "--pool", "vm=/tmp", "--unix", "/tmp/s", "--set", "IdelTime=00:01:00")]
    [InlineData(78, "Pools:vm:Dir: there is no such setting", "--pool", "vm=/tmp", "--unix", "/tmp/s", "--set", "Pools:vm:Dir=x")]
    [InlineData(78, "--config: ", "--config", "/nowhere.json")]
    [InlineData(69, "cannot listen on '/nowhere/s'", "--pool", "vm=/tmp", "--unix", "/nowhere/s")]
    public async Task What_is_wrong_is_named(int exitCode, string message, params string[] arguments)
    {
        (int ended, string output) = await RunningDaemon.RunAsync(arguments);
        Assert.Contains($"odiskd: {(exitCode == 78 ? "configuration: " : "")}{message}", output, StringComparison.Ordinal);
        Assert.Equal(exitCode, ended);
        Assert.DoesNotContain("   at ", output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Help_and_version_are_told()
    {
        (int exitCode, string help) = await RunningDaemon.RunAsync("--help");
        Assert.Equal(0, exitCode);
        foreach (string word in (string[])["--pool NAME=DIRECTORY", "--unix PATH", "--tcp HOST:PORT", "SIGTERM", "78"])
            Assert.Contains(word, help, StringComparison.Ordinal);
        (exitCode, string version) = await RunningDaemon.RunAsync("--version");
        Assert.Equal(0, exitCode);
        Assert.Matches(@"^odiskd \d+\.\d+\.\d+", version);
    }

    [Fact]
    public async Task A_second_daemon_on_the_same_socket_is_refused()
    {
        using var pool = new PoolDirectory();
        using RunningDaemon first = await RunningDaemon.StartAsync(pool);
        (int exitCode, string output) = await RunningDaemon.RunAsync("--pool", $"vm={pool.Path}", "--unix", pool.File("nbd.sock"));
        Assert.Equal(69, exitCode);
        Assert.Contains("address in use", output, StringComparison.Ordinal);
        Assert.Equal(0, await first.StopAsync());
    }

    [Fact]
    public async Task A_file_of_settings_is_read_and_the_command_line_counts_more()
    {
        using var pool = new PoolDirectory();
        using var golden = new PoolDirectory();
        await pool.CreateAsync("disk", "1M");
        await golden.CreateAsync("disk", "1M");
        await File.WriteAllTextAsync(pool.File("odiskd.json"), $$"""
            {
              "Pools": { "vm": { "Directory": "/nowhere" }, "golden": { "Directory": "{{golden.Path}}", "ReadOnly": true } },
              "Exports": { "boot": { "Image": "golden/disk", "Description": "the first disk" } },
              "Listen": { "Tcp": [ "127.0.0.1:0", "127.0.0.1:0" ] },
              "ExportsPools": false,
            }
            """);
        using (RunningDaemon daemon = await RunningDaemon.StartAsync(pool, "--config", pool.File("odiskd.json")))
        {
            string list = await Tool.RunAsync("nbdinfo", "--list", daemon.Uri(""));
            Assert.Contains("export=\"boot\"", list, StringComparison.Ordinal);
            Assert.Contains("is_read_only: true", list, StringComparison.Ordinal);
            Assert.DoesNotContain("vm/disk", list, StringComparison.Ordinal);
            Assert.Equal(0, await daemon.StopAsync());
        }
        await File.WriteAllTextAsync(pool.File("odiskd.json"), "{ \"Pools\": ");
        (int exitCode, string output) = await RunningDaemon.RunAsync("--config", pool.File("odiskd.json"));
        Assert.Equal(78, exitCode);
        Assert.Contains("odiskd: configuration: --config: ", output, StringComparison.Ordinal);
    }
}
