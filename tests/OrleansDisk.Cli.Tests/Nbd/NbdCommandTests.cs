using System.Globalization;
using System.Net;
using System.Net.Sockets;
using OrleansDisk.Cli.Tests.Tools;

namespace OrleansDisk.Cli.Tests.Nbd;

public sealed class NbdCommandTests : IDisposable
{
    private readonly TemporaryDirectory _directory = new();

    public void Dispose() => _directory.Dispose();

    [Theory]
    [InlineData("TERM")]
    [InlineData("INT")]
    public async Task What_clients_wrote_is_in_a_clean_image_after_a_signal(string signal)
    {
        Create("image", "64M");
        byte[] data = new byte[9_000_000];
        new Random(3).NextBytes(data);
        data.AsSpan(1 << 20, 3 << 20).Clear();
        File.WriteAllBytes(_directory.File("data.raw"), data);
        using (NbdProcess server = await NbdProcess.StartAsync(_directory, "-t", "-e", "8", "image"))
        {
            Run("nbdcopy", "libnbd-bin", "data.raw", server.Uri);
            Assert.Equal(0, await server.StopAsync(signal));
        }
        Assert.False(File.Exists(_directory.File("socket")));
        ExternalTool.QemuImg(_directory.Directory, "check", "-q", "-f", "qcow2", "image").Succeeded();
        // compare -s would want equal lengths; what is longer must be zeros.
        ExternalTool.QemuImg(_directory.Directory, "compare", "-f", "raw", "-F", "qcow2", "data.raw", "image").Succeeded();
    }

    [Fact]
    public async Task Allocation_is_told_as_qemu_nbd_tells_it()
    {
        Create("base", "4M");
        ExternalTool.QemuIo(_directory.File("base"), "write 0 256k", "write 1M 64k").Succeeded();
        Create("top", "6M", "-b", "base", "-F", "qcow2");
        ExternalTool.QemuIo(_directory.File("top"), "write 64k 64k", "write -z 128k 64k", "write -z -u 1M 64k", "write -c 2M 64k",
            "write 5M 100k").Succeeded();
        string ours;
        using (NbdProcess server = await NbdProcess.StartAsync(_directory, "-r", "-t", "top"))
        {
            ours = Run("nbdinfo", "libnbd-bin", "--map", server.Uri).Output;
            Assert.Equal(0, await server.StopAsync("TERM"));
        }
        string theirs = Run("nbdinfo", "libnbd-bin", "--map", "--", "[", "qemu-nbd", "-r", "-f", "qcow2", "top", "]").Output;
        Assert.Equal(theirs, ours);
    }

    [Fact]
    public async Task A_client_finds_in_a_bitmap_what_it_has_just_written_and_in_which_layer_the_rest_lies()
    {
        Create("base", "4M");
        ExternalTool.QemuIo(_directory.File("base"), "write 0 256k").Succeeded();
        Create("top", "4M", "-b", "base", "-F", "qcow2");
        ExternalTool.QemuIo(_directory.File("top"), "write 64k 64k").Succeeded();
        ExternalTool.QemuImg(_directory.Directory, "bitmap", "--add", "top", "changes").Succeeded();
        using (NbdProcess server = await NbdProcess.StartAsync(_directory, "-t", "-e", "0", "-A", "-B", "changes", "top"))
        {
            string depth = Run("nbdinfo", "libnbd-bin", "--map=qemu:allocation-depth", server.Uri).Output;
            Assert.Equal(["0 65536 2", "65536 65536 1", "131072 131072 2", "262144 3932160 0"], Columns(depth));
            Run("qemu-io", "qemu-utils", "-f", "raw", "-c", "write 1M 1k", "-c", "write 64k 512", server.Uri).Succeeded();
            string map = Run("nbdinfo", "libnbd-bin", "--map=qemu:dirty-bitmap:changes", server.Uri).Output;
            Assert.Equal(["0 65536 0", "65536 65536 1", "131072 917504 0", "1048576 65536 1", "1114112 3080192 0"], Columns(map));
            Assert.Contains("qemu:dirty-bitmap:changes", Run("nbdinfo", "libnbd-bin", server.Uri).Output, StringComparison.Ordinal);
            Assert.Equal(0, await server.StopAsync("TERM"));
        }
        ExternalTool.QemuImg(_directory.Directory, "check", "-q", "-f", "qcow2", "top").Succeeded();
        ToolResult missing = Odisk.Run(_directory.Directory, "nbd", "-k", "socket", "-B", "none", "top");
        Assert.Equal("odisk: Bitmap 'none' is not found", missing.Errors.TrimEnd());

        static IEnumerable<string> Columns(string map) => map.Split('\n', StringSplitOptions.RemoveEmptyEntries)
            .Select(line => string.Join(' ', line.Split(' ', StringSplitOptions.RemoveEmptyEntries).Take(3)));
    }

    [Fact]
    public async Task Every_request_of_a_client_has_its_effect()
    {
        Create("image", "16M");
        using NbdProcess server = await NbdProcess.StartAsync(_directory, "-t", "image");
        ToolResult result = Run("qemu-io", "qemu-utils", "-f", "raw", "-c", "write -P 7 0 3M", "-c", "write -f -P 8 5000 20000",
            "-c", "read -P 8 5000 20000", "-c", "write -z 1M 100k", "-c", "read -P 0 1M 100k", "-c", "discard 2M 64k",
            "-c", "read -P 0 2M 64k", "-c", "read -P 7 2112k 960k", "-c", "flush", server.Uri);
        Assert.DoesNotContain("failed", result.Output, StringComparison.OrdinalIgnoreCase);
        Assert.Equal(0, await server.StopAsync("TERM"));
        ExternalTool.QemuIo(_directory.File("image"), "read -P 8 5000 20000", "read -P 7 2112k 960k", "read -P 0 2M 64k").Succeeded();
        ExternalTool.QemuImg(_directory.Directory, "check", "-q", "-f", "qcow2", "image").Succeeded();
    }

    [Fact]
    public async Task Name_description_and_read_only_are_told_to_clients()
    {
        Create("image", "3M");
        using NbdProcess server = await NbdProcess.StartAsync(
            _directory, "-r", "-t", "-e", "0", "-x", "disk", "-D", "a fine disk", "image");
        ToolResult info = Run("nbdinfo", "libnbd-bin", server.Uri.Replace(":///", ":///disk", StringComparison.Ordinal));
        Assert.Contains("export=\"disk\":", info.Output, StringComparison.Ordinal);
        Assert.Contains("description: a fine disk", info.Output, StringComparison.Ordinal);
        Assert.Contains("export-size: 3145728", info.Output, StringComparison.Ordinal);
        Assert.Contains("is_read_only: true", info.Output, StringComparison.Ordinal);
        ToolResult other = ExternalTool.Run("nbdinfo", "libnbd-bin", _directory.Directory,
            ["--size", server.Uri.Replace(":///", ":///other", StringComparison.Ordinal)]);
        Assert.Equal(1, other.ExitCode);
    }

    [Fact]
    public async Task Without_persistence_the_server_ends_with_its_last_client()
    {
        Create("image", "3M");
        using NbdProcess server = await NbdProcess.StartAsync(_directory, "image");
        Run("qemu-io", "qemu-utils", "-f", "raw", "-c", "write -P 120 0 512", server.Uri);
        Assert.Equal(0, await server.WaitForExitAsync());
        ExternalTool.QemuIo(_directory.File("image"), "read -P 120 0 512").Succeeded();
    }

    [Fact]
    public async Task A_raw_file_is_served_up_to_its_last_sector()
    {
        File.WriteAllBytes(_directory.File("raw.img"), [.. Enumerable.Repeat((byte)5, 3000)]);
        using NbdProcess server = await NbdProcess.StartAsync(_directory, "-f", "raw", "raw.img");
        Run("qemu-io", "qemu-utils", "-f", "raw", "-c", "read -P 5 0 3000", "-c", "read -P 0 3000 72", "-c", "write -P 6 2560 512", server.Uri);
        Assert.Equal(0, await server.WaitForExitAsync());
        Assert.Equal([.. Enumerable.Repeat((byte)5, 2560), .. Enumerable.Repeat((byte)6, 512)], File.ReadAllBytes(_directory.File("raw.img")));
    }

    [Fact]
    public async Task A_client_cannot_turn_a_raw_file_of_unknown_format_into_an_image()
    {
        File.WriteAllBytes(_directory.File("raw.img"), new byte[65536]);
        using NbdProcess server = await NbdProcess.StartAsync(_directory, "raw.img");
        File.WriteAllBytes(_directory.File("magic"), [(byte)'Q', (byte)'F', (byte)'I', 0xfb, 0, 0, 0, 3]);
        ToolResult writing = ExternalTool.Run("qemu-io", "qemu-utils", _directory.Directory,
            ["-f", "raw", "-c", "write -s magic 0 512", "-c", "write -P 1 512 512", server.Uri]);
        Assert.Equal(0, await server.WaitForExitAsync());
        Assert.Contains("write failed: Operation not permitted", writing.Output, StringComparison.Ordinal);
        Assert.Equal([.. new byte[512], .. Enumerable.Repeat((byte)1, 512)], File.ReadAllBytes(_directory.File("raw.img"))[..1024]);
    }

    [Fact]
    public void In_the_background_it_returns_when_clients_can_connect()
    {
        Create("image", "3M");
        ToolResult start = Odisk.Run(_directory.Directory, "nbd", "--fork", "--pid-file=pid", "-t", "-k", "socket", "image");
        Assert.Equal((0, "", ""), (start.ExitCode, start.Output, start.Errors));
        string id = File.ReadAllText(_directory.File("pid"));
        Assert.EndsWith("\n", id, StringComparison.Ordinal);
        Run("nbdinfo", "libnbd-bin", "--size", $"nbd+unix:///?socket={_directory.File("socket")}");
        Run("kill", "procps", "-TERM", id.Trim());
        // The lock goes with the process, and the file that names it before that.
        SpinWait.SpinUntil(() => !File.Exists(_directory.File("pid")), TimeSpan.FromSeconds(30));
        SpinWait.SpinUntil(() => TryOpen("image"), TimeSpan.FromSeconds(30));
        Assert.False(File.Exists(_directory.File("pid")));
        ExternalTool.QemuImg(_directory.Directory, "check", "-q", "-f", "qcow2", "image").Succeeded();
    }

    [Fact]
    public void In_the_background_a_start_that_fails_is_reported()
    {
        Create("image", "3M");
        using var writer = new LockedImage(_directory.File("image"));
        ToolResult start = Odisk.Run(_directory.Directory, "nbd", "--fork", "-k", "socket", "image");
        Assert.Equal(1, start.ExitCode);
        Assert.StartsWith("odisk: Could not open 'image': Failed to get \"write\" lock\n", start.Errors, StringComparison.Ordinal);
    }

    [Fact]
    public async Task An_address_in_use_is_named_and_the_image_released()
    {
        Create("image", "3M");
        Create("other", "3M");
        using NbdProcess server = await NbdProcess.StartAsync(_directory, "-t", "image");
        ToolResult second = Odisk.Run(_directory.Directory, "nbd", "-k", "socket", "other");
        Assert.Equal((1, "odisk: cannot listen on 'socket': address in use\n"), (second.ExitCode, second.Errors));
        Assert.True(TryOpen("other"));
    }

    [Fact]
    public async Task A_tcp_port_can_be_served()
    {
        Create("image", "3M");
        int port = FreePort();
        Task<ToolResult> server = Task.Factory.StartNew(() => Odisk.Run(_directory.Directory, "nbd", "-b", "127.0.0.1", "-p",
            port.ToString(CultureInfo.InvariantCulture), "image"), TaskCreationOptions.LongRunning);
        ToolResult size;
        do
            size = ExternalTool.Run("nbdinfo", "libnbd-bin", _directory.Directory, ["--size", $"nbd://127.0.0.1:{port}"]);
        while (size.ExitCode != 0 && !server.IsCompleted);
        Assert.Equal("3145728\n", size.Output);
        Assert.Equal(0, (await server).ExitCode);
    }

    [Theory]
    [InlineData("", "No image to serve; give its file name")]
    [InlineData("a b", "Unexpected argument: b")]
    [InlineData("-p 70000 a", "Invalid port '70000'; use 0 to 65535")]
    [InlineData("-p x a", "Invalid port 'x'; use 0 to 65535")]
    [InlineData("--frobnicate a", "unrecognized option '--frobnicate'")]
    [InlineData("none", "Could not open 'none': Could not open 'none': No such file or directory")]
    [InlineData("-f vmdk image", "Could not open 'image': Unknown driver 'vmdk'")]
    public void Wrong_questions_are_answered(string arguments, string message)
    {
        Create("image", "1M");
        ToolResult result = Odisk.Run(_directory.Directory,
            ["nbd", .. arguments.Split(' ', StringSplitOptions.RemoveEmptyEntries)]);
        Assert.Equal(1, result.ExitCode);
        Assert.StartsWith($"odisk: {message}\n", result.Errors, StringComparison.Ordinal);
    }

    [Fact]
    public void A_link_named_qemu_nbd_serves()
    {
        string link = _directory.File("qemu-nbd");
        File.CreateSymbolicLink(link, Odisk.Program);
        ToolResult result = ExternalTool.Run(link, "(none)", _directory.Directory, ["-k", "socket", "none"]);
        Assert.StartsWith("qemu-nbd: Could not open 'none'", result.Errors, StringComparison.Ordinal);
    }

    private bool TryOpen(string image) =>
        ExternalTool.Run("qemu-io", "qemu-utils", _directory.Directory, ["-f", "qcow2", "-c", "length", image]).ExitCode == 0;

    private void Create(string name, string size, params string[] options) =>
        ExternalTool.QemuImg(_directory.Directory, ["create", "-q", "-f", "qcow2", .. options, name, size]).Succeeded();

    private ToolResult Run(string program, string package, params string[] arguments) =>
        ExternalTool.Run(program, package, _directory.Directory, arguments).Succeeded();

    private static int FreePort()
    {
        using var probe = new TcpListener(IPAddress.Loopback, 0);
        probe.Start();
        return ((IPEndPoint)probe.LocalEndpoint).Port;
    }
}
