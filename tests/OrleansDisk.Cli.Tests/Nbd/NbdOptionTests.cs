using OrleansDisk.Cli.Tests.Tools;

namespace OrleansDisk.Cli.Tests.Nbd;

/// <summary>Options of odisk nbd beside qemu-nbd.</summary>
public sealed class NbdOptionTests : IDisposable
{
    private readonly TemporaryDirectory _directory = new();

    public void Dispose() => _directory.Dispose();

    [Theory]
    [InlineData("-l nix image")]
    [InlineData("-l snapshot.foo=1 image")]
    [InlineData("-l snapshot.id=9 image")]
    [InlineData("-o 4194304 image")]
    [InlineData("-o 4k image")]
    [InlineData("--cache=foo image")]
    [InlineData("-n --cache=none image")]
    [InlineData("--aio=foo image")]
    [InlineData("--discard=foo image")]
    [InlineData("--detect-zeroes=foo image")]
    [InlineData("--detect-zeroes=unmap --discard=ignore image")]
    [InlineData("-e -1 image")]
    [InlineData("-B foo image")]
    [InlineData("-c /dev/nowhere image")]
    [InlineData("-L image")]
    [InlineData("-L --fork")]
    [InlineData("-L -o 5")]
    [InlineData("-L -x name")]
    [InlineData("-L -k /nowhere/socket")]
    [InlineData("-L -p 1")]
    public void What_can_not_be_had_is_refused_in_qemu_nbds_words(string arguments)
    {
        Create();
        AssertSame(arguments.Split(' '));
    }

    [Fact]
    public void Devices_of_the_kernel_are_left_to_nbd_client()
    {
        Create();
        ToolResult connect = Odisk.Run(_directory.Directory, "nbd", "-c", "/dev/null", "image");
        Assert.Equal(1, connect.ExitCode);
        Assert.Contains("nbd-client -unix PATH /dev/null", connect.Errors, StringComparison.Ordinal);
        ToolResult disconnect = Odisk.Run(_directory.Directory, "nbd", "-d", "/dev/null");
        Assert.Contains("nbd-client -d /dev/null", disconnect.Errors, StringComparison.Ordinal);
    }

    [Fact]
    public async Task What_a_server_has_is_listed_as_qemu_nbd_lists_it()
    {
        Create();
        ExternalTool.QemuImg(_directory.Directory, "bitmap", "--add", "image", "changes").Succeeded();
        using NbdProcess server = await NbdProcess.StartAsync(
            _directory, "-t", "-e", "0", "-A", "-B", "changes", "-x", "disk", "-D", "a fine disk", "image");
        AssertSame("-L", "-k", _directory.File("socket"));
        Assert.Equal(0, await server.StopAsync("TERM"));
    }

    [Theory]
    [InlineData("one")]
    [InlineData("1")]
    [InlineData("snapshot.name=one")]
    [InlineData("snapshot.id=1,snapshot.name=one")]
    public async Task A_snapshot_is_served_and_can_not_be_written(string snapshot)
    {
        Create();
        using NbdProcess server = await NbdProcess.StartAsync(_directory, "-t", "-e", "0", "-l", snapshot, "image");
        ExternalTool.Run("qemu-io", "qemu-utils", _directory.Directory,
            ["-r", "-f", "raw", "-c", "read -P 1 0 1M", "-c", "read -P 0 1M 2M", server.Uri]).Succeeded();
        Assert.Contains("is_read_only: true", ExternalTool.Run("nbdinfo", "libnbd-bin", _directory.Directory, [server.Uri]).Output,
            StringComparison.Ordinal);
        Assert.Equal(0, await server.StopAsync("TERM"));
    }

    [Fact]
    public async Task An_offset_shows_the_rest_of_a_disk_with_its_chain_and_writes_there()
    {
        Create();
        ExternalTool.QemuImg(_directory.Directory, "create", "-q", "-f", "qcow2", "-b", "image", "-F", "qcow2", "top").Succeeded();
        using (NbdProcess server = await NbdProcess.StartAsync(_directory, "-t", "-e", "0", "-o", "1048064", "top"))
        {
            Io(server, "read -P 2 0 512", "read -P 0 512 1M", "write -P 3 256 512", "flush", "read -P 2 0 256");
            string map = ExternalTool.QemuImg(_directory.Directory, "map", "--output=json", server.Uri).Output;
            Assert.Contains("\"start\": 66048, \"length\": 2031616, \"depth\": 0, \"present\": true, \"zero\": true", map, StringComparison.Ordinal);
            Assert.Equal("2097664\n", ExternalTool.Run("nbdinfo", "libnbd-bin", _directory.Directory, ["--size", server.Uri]).Output);
            Assert.Equal(0, await server.StopAsync("TERM"));
        }
        ExternalTool.QemuImg(_directory.Directory, "check", "-q", "-f", "qcow2", "top").Succeeded();
        ExternalTool.QemuIo(_directory.File("top"), "read -P 2 0 1048320", "read -P 3 1048320 512", "read -P 0 1048832 1M").Succeeded();
    }

    [Fact]
    public async Task What_is_written_to_a_temporary_snapshot_is_forgotten()
    {
        Create();
        byte[] before = File.ReadAllBytes(_directory.File("image"));
        using (NbdProcess server = await NbdProcess.StartAsync(_directory, "-t", "-e", "0", "-s", "image"))
        {
            Io(server, "write -P 9 0 512", "flush");
            Io(server, "read -P 9 0 512", "read -P 2 512 512");
            Assert.Equal(0, await server.StopAsync("TERM"));
        }
        Assert.Equal(before, File.ReadAllBytes(_directory.File("image")));
    }

    [Theory]
    [InlineData("--cache=writethrough")]
    [InlineData("--cache=directsync")]
    [InlineData("--cache=unsafe")]
    [InlineData("--cache=none")]
    [InlineData("--detect-zeroes=unmap --discard=unmap")]
    public async Task What_is_written_in_any_mode_is_there(string mode)
    {
        Create();
        using (NbdProcess server = await NbdProcess.StartAsync(_directory, ["-t", "-e", "0", .. mode.Split(' '), "image"]))
        {
            Io(server, "write -P 9 0 512", "write -P 0 512 256k", "write -z 1M 64k", "discard 2M 64k", "flush");
            Assert.Equal(0, await server.StopAsync("TERM"));
        }
        ExternalTool.QemuImg(_directory.Directory, "check", "-q", "-f", "qcow2", "image").Succeeded();
        ExternalTool.QemuIo(_directory.File("image"), "read -P 9 0 512", "read -P 0 512 256k", "read -P 2 512k 512k").Succeeded();
    }

    /// <summary>A disk of 3 MiB, whose first has 2, and 1 in the snapshot "one".</summary>
    private void Create()
    {
        ExternalTool.QemuImg(_directory.Directory, "create", "-q", "-f", "qcow2", "image", "3M").Succeeded();
        ExternalTool.QemuIo(_directory.File("image"), "write -P 1 0 1M").Succeeded();
        ExternalTool.QemuImg(_directory.Directory, "snapshot", "-c", "one", "image").Succeeded();
        ExternalTool.QemuIo(_directory.File("image"), "write -P 2 0 1M").Succeeded();
    }

    private void AssertSame(params string[] arguments)
    {
        ToolResult theirs = ExternalTool.Run("qemu-nbd", "qemu-utils", _directory.Directory, arguments);
        ToolResult ours = Odisk.Run(_directory.Directory, ["nbd", .. arguments]);
        Odisk.AssertSame(theirs with { Errors = theirs.Errors.Replace("qemu-nbd: ", "odisk: ", StringComparison.Ordinal) }, ours);
    }

    private void Io(NbdProcess server, params string[] commands) => ExternalTool.Run("qemu-io", "qemu-utils", _directory.Directory,
        ["-f", "raw", .. commands.SelectMany(command => (string[])["-c", command]), server.Uri]).Succeeded();
}
