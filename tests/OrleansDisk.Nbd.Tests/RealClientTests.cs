using System.Text.Json;
using OrleansDisk.Nbd.Protocol;
using OrleansDisk.Nbd.Server;
using OrleansDisk.Nbd.Tests.Fixtures;

namespace OrleansDisk.Nbd.Tests;

/// <summary>libnbd's tools, fio and QEMU against a server in this process.</summary>
public sealed class RealClientTests
{
    private const long ExportBytes = 64 << 20;

    private static MemoryExport Export(bool isAsynchronous = false, string name = "") =>
        new(name, MemoryExport.FullInfo(ExportBytes)) { IsAsynchronous = isAsynchronous, Description = "for tests" };

    [Fact]
    public async Task Nbdinfo_sees_size_flags_and_block_sizes()
    {
        await using TestServer server = await TestServer.StartAsync(Export());
        using var json = JsonDocument.Parse(await Tool.RunAsync("nbdinfo", "--json", server.Uri()));
        JsonElement export = json.RootElement.GetProperty("exports")[0];
        Assert.Equal("newstyle-fixed", json.RootElement.GetProperty("protocol").GetString());
        Assert.True(json.RootElement.GetProperty("structured").GetBoolean());
        Assert.Equal(ExportBytes, export.GetProperty("export-size").GetInt64());
        Assert.Equal("for tests", export.GetProperty("description").GetString());
        Assert.Equal("base:allocation", export.GetProperty("contexts")[0].GetString());
        foreach (string name in new[] { "cache", "df", "fast_zero", "flush", "fua", "multi_conn", "trim", "zero" })
            Assert.True(export.GetProperty("can_" + name).GetBoolean(), name);
        Assert.False(export.GetProperty("is_read_only").GetBoolean());
        Assert.Equal(1, export.GetProperty("block_size_minimum").GetInt64());
        Assert.Equal(4096, export.GetProperty("block_size_preferred").GetInt64());
        Assert.Equal(32 << 20, export.GetProperty("block_size_maximum").GetInt64());
        Assert.Empty(server.Lines);
    }

    [Fact]
    public async Task Nbdinfo_lists_every_export()
    {
        await using TestServer server = await TestServer.StartAsync(Export(name: "one"), Export(name: "two"));
        using var json = JsonDocument.Parse(await Tool.RunAsync("nbdinfo", "--list", "--json", server.Uri()));
        IEnumerable<string?> names = json.RootElement.GetProperty("exports").EnumerateArray()
            .Select(export => export.GetProperty("export-name").GetString());
        Assert.Equal(["one", "two"], names);
    }

    [Fact]
    public async Task Nbdinfo_maps_data_and_holes()
    {
        MemoryExport export = Export();
        await using TestServer server = await TestServer.StartAsync(export);
        using (RawClient client = server.Go())
            Assert.Equal(NbdError.None, client.Write(1 << 20, new byte[8192]).Error);
        using var json = JsonDocument.Parse(await Tool.RunAsync("nbdinfo", "--map", "--json", server.Uri()));
        IEnumerable<(long, long, int)> extents = json.RootElement.EnumerateArray().Select(extent => (
            extent.GetProperty("offset").GetInt64(), extent.GetProperty("length").GetInt64(),
            extent.GetProperty("type").GetInt32()));
        long end = (1 << 20) + 8192;
        Assert.Equal([(0, 1 << 20, 3), (1 << 20, 8192, 0), (end, ExportBytes - end, 3)], extents);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Nbdcopy_writes_and_reads_back_a_sparse_disk(bool isAsynchronous)
    {
        await using TestServer server = await TestServer.StartAsync(Export(isAsynchronous));
        await CopyBothWaysAsync(server.Uri());
        Assert.Empty(server.Lines);
    }

    [Theory]
    [InlineData(false, 1)]
    [InlineData(true, 4)]
    public async Task Fio_verifies_mixed_random_writes(bool isAsynchronous, int jobs)
    {
        await using TestServer server = await TestServer.StartAsync(Export(isAsynchronous));
        await Tool.RunAsync(
            "fio", "--name=verify", "--ioengine=nbd", "--uri=" + server.Uri(), "--rw=randrw", "--iodepth=16",
            "--bssplit=512/20:4k/50:64k/20:1m/10", "--verify=crc32c", "--verify_fatal=1", "--randseed=11",
            $"--numjobs={jobs}", $"--size={16 / jobs}M", $"--offset_increment={16 / jobs}M", "--fsync=64", "--group_reporting");
        Assert.Empty(server.Lines);
    }

    [Fact]
    public async Task Nbdsh_runs_every_command_and_flag()
    {
        var seen = new System.Collections.Concurrent.ConcurrentQueue<SeenRequest>();
        var export = new MemoryExport("disk", MemoryExport.FullInfo(ExportBytes)) { Seen = seen };
        await using TestServer server = await TestServer.StartAsync(export);
        string script = Path.Combine(AppContext.BaseDirectory, "Fixtures", "every_command.py");
        string output = await Tool.RunAsync("/usr/bin/python3", script, server.Uri("disk"));
        Assert.Equal("done\n", output);
        Assert.Equal(7, seen.Select(request => request.Command).Distinct().Count());
        // A payload's length is between client and server; exports know nothing of it.
        foreach (NbdCommandFlags flag in Enum.GetValues<NbdCommandFlags>().Where(flag => flag != NbdCommandFlags.PayloadLength))
            Assert.Contains(seen, request => (request.Flags & flag) == flag);
    }

    [Fact]
    public async Task Qemu_io_writes_zeroes_discards_and_reads()
    {
        var seen = new System.Collections.Concurrent.ConcurrentQueue<SeenRequest>();
        var export = new MemoryExport("", MemoryExport.FullInfo(ExportBytes)) { Seen = seen };
        await using TestServer server = await TestServer.StartAsync(export);
        await Tool.RunAsync(
            "qemu-io", "-t", "writeback", "-f", "raw", "-c", "write -P 7 0 1M", "-c", "write -f -P 8 1M 64k", "-c", "write -z -u 64k 64k",
            "-c", "write -z 128k 64k", "-c", "discard 256k 64k", "-c", "flush", "-c", "read -P 7 0 64k",
            "-c", "read -P 0 64k 128k", "-c", "read -P 8 1M 64k", server.Uri());
        Assert.Contains(seen, request => request is { Command: NbdCommand.Write, Flags: NbdCommandFlags.Fua });
        Assert.Contains(seen, request => request is { Command: NbdCommand.WriteZeroes, Flags: NbdCommandFlags.None });
        Assert.Contains(seen, request => request is { Command: NbdCommand.WriteZeroes, Flags: NbdCommandFlags.NoHole });
        Assert.Contains(seen, request => request.Command == NbdCommand.Trim);
        Assert.Contains(seen, request => request.Command == NbdCommand.Flush);
        Assert.Empty(server.Lines);
    }

    [Fact]
    public async Task Qemu_img_converts_and_compares_over_nbd()
    {
        await using TestServer server = await TestServer.StartAsync(Export());
        string source = Path.Combine(server.DirectoryPath, "source.raw");
        byte[] bytes = new byte[8 << 20];
        new Random(5).NextBytes(bytes.AsSpan(1 << 20, 3 << 20));
        await File.WriteAllBytesAsync(source, bytes);
        await Tool.RunAsync("qemu-img", "resize", "-f", "raw", source, "64M");
        await Tool.RunAsync("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", source, server.Uri());
        await Tool.RunAsync("qemu-img", "compare", "-f", "raw", "-F", "raw", source, server.Uri());
        string map = await Tool.RunAsync("qemu-img", "map", "--output=json", "-f", "raw", server.Uri());
        Assert.Contains("\"data\": false", map);
    }

    [Fact]
    public async Task Real_clients_work_over_tcp()
    {
        MemoryExport export = Export();
        await using var server = new NbdServer([NbdListenAddress.Tcp("localhost", 0)], () => [export]);
        await server.StartAsync();
        int port = ((System.Net.IPEndPoint)server.EndPoints[0]).Port;
        string host = server.EndPoints[0].AddressFamily == System.Net.Sockets.AddressFamily.InterNetworkV6
            ? "[::1]"
            : "127.0.0.1";
        await CopyBothWaysAsync($"nbd://{host}:{port}");
    }

    /// <summary>The plugin checks what is written to it against what it would have been read as.</summary>
    private static Task<string> CopyBothWaysAsync(string uri) => Tool.RunScriptAsync(
        "nbdkit", "nbdkit -U - sparse-random 64M seed=7 percent=20 --run "
        + $"'nbdcopy \"$uri\" \"{uri}\" && nbdcopy \"{uri}\" \"$uri\"'");
}
