using System.Diagnostics;
using OrleansDisk.Cli.Tests.Tools;

namespace OrleansDisk.Cli.Tests.Nbd;

/// <summary>Exports of NBD servers where commands take images.</summary>
public sealed class NbdDiskTests : IDisposable
{
    /// <summary>All that base:allocation can say, in parts of 64 KiB: data, a hole, zeros, a hole of zeros.</summary>
    private const string AllStates = "extents='echo 0 64k; echo 64k 64k hole; echo 128k 64k zero; echo 192k 64k hole,zero'";

    private readonly TemporaryDirectory _directory = new();

    public void Dispose() => _directory.Dispose();

    [Fact]
    public async Task Holes_and_zeros_of_the_server_are_seen_as_qemu_img_sees_them()
    {
        string uri = $"nbd+unix://?socket={_directory.File("kit")}";
        // The shell stays between: as a child of a thread of this process that ends, nbdkit is told to quit.
        using Process kit = await StartAsync("sh", "kit", "-c",
            $"nbdkit -f -U kit eval get_size='echo 256k' {AllStates} pread='head -c $3 /dev/zero'; exit $?");
        AssertSame("map", "--output=json", uri);
        AssertSame("map", "-f", "raw", "--output=json", uri);
        AssertSame("map", uri);
        kit.Kill(entireProcessTree: true);
    }

    [Fact]
    public async Task The_depth_of_a_chain_and_a_bitmap_are_mapped_as_qemu_img_maps_them()
    {
        Create("base", "4M");
        ExternalTool.QemuIo(_directory.File("base"), "write 0 2M").Succeeded();
        Create("middle", "4M", "-b", "base", "-F", "qcow2");
        Create("top", "4M", "-b", "middle", "-F", "qcow2");
        ExternalTool.QemuImg(_directory.Directory, "bitmap", "--add", "top", "changes").Succeeded();
        ExternalTool.QemuIo(_directory.File("top"), "write 1M 2M").Succeeded();
        string options = $"driver=nbd,server.type=unix,server.path={_directory.File("nbd")}";
        using Process server = await StartAsync("qemu-nbd", "nbd", "-r", "-t", "-e", "0", "-A", "-B", "changes", "-k", _directory.File("nbd"), "top");
        foreach (string context in (ReadOnlySpan<string>)["", ",x-dirty-bitmap=qemu:allocation-depth", ",x-dirty-bitmap=qemu:dirty-bitmap:changes"])
            AssertSame("map", "--output=json", "--image-opts", options + context);
        ToolResult none = Odisk.Run(_directory.Directory, "map", "--image-opts", options + ",x-dirty-bitmap=qemu:dirty-bitmap:none");
        Assert.StartsWith($"odisk: Could not open '{options},x-dirty-bitmap=qemu:dirty-bitmap:none': Could not open image: Invalid argument",
            none.Errors, StringComparison.Ordinal);
        server.Kill();
    }

    [Fact]
    public async Task An_image_is_copied_from_one_server_to_another_with_its_holes()
    {
        Create("source", "64M");
        byte[] data = new byte[9_000_000];
        new Random(5).NextBytes(data);
        File.WriteAllBytes(_directory.File("data"), data);
        ExternalTool.QemuIo(_directory.File("source"), "write -s data 3M 9000000", "write -z 50M 1M").Succeeded();
        Create("target", "64M");
        using (NbdProcess to = await NbdProcess.StartAsync(_directory, "-t", "-e", "0", "target"))
        using (Process from = await StartAsync("qemu-nbd", "nbd", "-r", "-t", "-k", _directory.File("nbd"), "source"))
        {
            Odisk.Run(_directory.Directory, "convert", "-n", "-m", "16", "-W", "-f", "raw", "-O", "raw",
                $"nbd+unix://?socket={_directory.File("nbd")}", to.Uri).Succeeded();
            AssertSame("compare", "-f", "qcow2", "-F", "raw", "-s", "source", to.Uri);
            AssertSame("measure", "-f", "raw", "-O", "qcow2", to.Uri);
            Assert.Equal(0, await to.StopAsync("TERM"));
            from.Kill();
        }
        ExternalTool.QemuImg(_directory.Directory, "check", "-q", "-f", "qcow2", "target").Succeeded();
        ExternalTool.QemuImg(_directory.Directory, "compare", "-f", "qcow2", "-F", "qcow2", "source", "target").Succeeded();
        Assert.InRange(new FileInfo(_directory.File("target")).Length, 9_000_000, 12 << 20);
    }

    [Fact]
    public async Task A_server_that_takes_whole_blocks_only_gets_whole_blocks()
    {
        string uri = $"nbd+unix://?socket={_directory.File("kit")}";
        using Process kit = await StartAsync("sh", "kit", "-c", "nbdkit -f -U kit --filter=blocksize-policy memory 4M blocksize-minimum=4096 "
            + "blocksize-preferred=4096 blocksize-maximum=64k blocksize-error-policy=error; exit $?");
        Odisk.Run(_directory.Directory, "io", "-f", "raw", "-c", "write -P 5 100 1000", "-c", "write -P 6 1M 300k", "-c", "write -z 1049000 8000",
            "-c", "write -z 1200000 10", "-c", "discard 1250000 20000", "-c", "aio_write -P 7 2M 100", "-c", "aio_write -P 8 2097252 100",
            "-c", "aio_write -P 9 2101248 4096", "-c", "aio_flush", "-c", "read -P 5 100 1000", uri).Succeeded();
        foreach (Func<string[], ToolResult> reader in (Func<string[], ToolResult>[])[
            words => Odisk.Run(_directory.Directory, ["io", .. words]),
            words => ExternalTool.Run("qemu-io", "qemu-utils", _directory.Directory, words)])
        {
            reader(["-r", "-f", "raw", "-c", "read -P 0 0 100", "-c", "read -P 5 100 1000", "-c", "read -P 0 1100 5000", "-c", "read -P 6 1M 424",
                "-c", "read -P 0 1049000 8000", "-c", "read -P 6 1057000 143000", "-c", "read -P 0 1200000 10", "-c", "read -P 6 1200010 49000",
                "-c", "read -P 7 2M 100", "-c", "read -P 8 2097252 100", "-c", "read -P 0 2097352 3896", "-c", "read -P 9 2101248 4096", uri]).Succeeded();
        }
        kit.Kill(entireProcessTree: true);
    }

    [Theory]
    [InlineData("nbd+unix://")]
    [InlineData("nbd+unix:///?sock=1")]
    [InlineData("nbd:")]
    [InlineData("nbd:foo")]
    [InlineData("nbd:localhost:1")]
    [InlineData("nbd://localhost:1/name")]
    [InlineData("nbd:unix:/nowhere/socket")]
    [InlineData("nbd+unix:///name?socket=/nowhere/socket")]
    [InlineData("json:{\"driver\": \"nbd\", \"host\": -1}")]
    [InlineData("json:{\"driver\": \"nbd\"}")]
    [InlineData("json:{\"driver\": \"nbd\", \"server.type\": \"unix\"}")]
    [InlineData("json:{\"driver\": \"nbd\", \"server.type\": \"inet\", \"server.host\": \"localhost\"}")]
    public void An_address_that_leads_nowhere_is_refused_in_qemu_imgs_words(string address) => AssertSame("info", address);

    [Fact]
    public async Task An_export_has_the_name_and_the_errors_that_qemu_img_gives_it()
    {
        Create("image", "3M");
        using Process server = await StartAsync("qemu-nbd", "nbd", "-t", "-e", "0", "-x", "disk", "-k", _directory.File("nbd"), "image");
        AssertSame("info", $"nbd+unix:///disk?socket={_directory.File("nbd")}");
        AssertSame("info", $"nbd:unix:{_directory.File("nbd")}:exportname=disk");
        AssertSame("info", "--image-opts", $"driver=nbd,export=disk,server.type=unix,server.path={_directory.File("nbd")}");
        AssertSame("info", "--output=json", "--image-opts", $"driver=nbd,export=disk,server.type=unix,server.path={_directory.File("nbd")}");
        AssertSame("info", $"nbd+unix:///other?socket={_directory.File("nbd")}");
        server.Kill();
    }

    [Fact]
    public async Task A_server_that_starts_late_is_waited_for()
    {
        Create("image", "3M");
        Task<ToolResult> reading = Task.Run(() => Odisk.Run(_directory.Directory, "io", "--image-opts", "-c", "read -P 0 0 1M",
            $"driver=nbd,open-timeout=60,server.type=unix,server.path={_directory.File("socket")}"));
        using NbdProcess server = await NbdProcess.StartAsync(_directory, "-r", "-t", "image");
        Assert.Contains("read 1048576/1048576", (await reading).Succeeded().Output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_server_that_goes_is_an_error_from_then_on()
    {
        using var image = new ServedRaw(_directory);
        image.Start();
        using var shell = new IoProcess(_directory, image.Options);
        await shell.ExpectAsync("write -P 1 0 64k", "wrote 65536/65536");
        image.Kill();
        await shell.ExpectAsync("read 0 64k", "read failed: Input/output error");
        image.Start();
        await shell.ExpectAsync("read 0 64k", "read failed: Input/output error");
    }

    /// <summary>The shell fails at its end when one of its commands did, and a flush prints nothing.</summary>
    [Theory]
    [InlineData(true, 0)]
    [InlineData(false, 1)]
    public async Task A_server_that_comes_back_is_used_again_when_there_is_time_for_it_and_writes_that_it_may_have_lost_fail_a_flush(
        bool isFlushed, int exitCode)
    {
        using var image = new ServedRaw(_directory);
        image.Start();
        using var shell = new IoProcess(_directory, image.Options + ",reconnect-delay=60");
        await shell.ExpectAsync("write -P 1 0 64k", "wrote 65536/65536");
        if (isFlushed)
            await shell.ExpectAsync("flush\nlength", "3 MiB");
        image.Kill();
        image.Start();
        await shell.ExpectAsync("read -P 1 0 64k", "read 65536/65536");
        await shell.ExpectAsync("write -P 3 128k 64k", "wrote 65536/65536");
        await shell.ExpectAsync("flush\nread -P 3 128k 64k", "read 65536/65536");
        Assert.Equal(exitCode, await shell.EndAsync());
    }

    private void AssertSame(params string[] arguments) => Odisk.AssertSameAsQemuImg(_directory.Directory, arguments);

    private void Create(string name, string size, params string[] options) =>
        ExternalTool.QemuImg(_directory.Directory, ["create", "-q", "-f", "qcow2", .. options, name, size]).Succeeded();

    private async Task<Process> StartAsync(string program, string socket, params string[] arguments)
    {
        var process = Process.Start(new ProcessStartInfo(program, arguments) { WorkingDirectory = _directory.Directory })!;
        while (!File.Exists(_directory.File(socket)))
        {
            Assert.False(process.HasExited, $"{program} has ended");
            await Task.Yield();
        }
        return process;
    }
}
