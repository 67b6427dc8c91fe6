using System.Collections.Concurrent;
using System.Diagnostics;
using System.Net.Sockets;
using OrleansDisk.Nbd.Client;
using OrleansDisk.Nbd.Protocol;
using OrleansDisk.Nbd.Server;
using OrleansDisk.Nbd.Tests.Fixtures;

namespace OrleansDisk.Nbd.Tests;

/// <summary>The client against our server, and against servers that break the protocol.</summary>
public sealed class ClientTests
{
    private const int DiskBytes = 8 << 20;

    [Fact]
    public async Task What_is_written_zeroed_and_trimmed_is_read_back()
    {
        await using TestServer server = await TestServer.StartAsync(new MemoryExport("disk", MemoryExport.FullInfo(DiskBytes)));
        byte[] data = new byte[300_000];
        new Random(1).NextBytes(data);
        await using (NbdClient client = await NbdClient.ConnectUnixAsync(server.SocketPath, "disk"))
        {
            Assert.Equal(DiskBytes, client.Bytes);
            Assert.False(client.IsReadOnly);
            await client.WriteAsync(12_345, data, fua: true);
            await client.WriteZeroesAsync(20_000, 5_000);
            await client.TrimAsync(4 << 20, 4096);
            await client.FlushAsync();
        }
        data.AsSpan(20_000 - 12_345, 5_000).Clear();
        await using NbdClient second = await NbdClient.ConnectUnixAsync(server.SocketPath, "disk");
        byte[] read = new byte[data.Length];
        await second.ReadAsync(12_345, read);
        Assert.Equal(data, read);
    }

    [Fact]
    public async Task A_context_that_is_asked_for_tells_data_from_holes_and_reads_go_on()
    {
        await using TestServer server = await TestServer.StartAsync(new MemoryExport("disk", MemoryExport.FullInfo(DiskBytes)));
        await using NbdClient client = await NbdClient.ConnectUnixAsync(server.SocketPath, "disk", "base:allocation");
        Assert.True(client.HasBlockStatus);
        byte[] data = new byte[1 << 20];
        new Random(2).NextBytes(data);
        await client.WriteAsync(2 << 20, data);
        Assert.Equal([new NbdExtent(2 << 20, 3)], await client.GetBlockStatusAsync(0, DiskBytes, onlyFirst: true));
        Assert.Equal([new NbdExtent(1 << 20, 0)], await client.GetBlockStatusAsync(2 << 20, DiskBytes - (2 << 20), onlyFirst: true));
        byte[] read = new byte[3 << 20];
        Array.Fill(read, (byte)1);
        await client.ReadAsync(1 << 20, read);
        Assert.Equal([.. new byte[1 << 20], .. data, .. new byte[1 << 20]], read);
        NbdRequestException refused = await Assert.ThrowsAsync<NbdRequestException>(() => client.ReadAsync(DiskBytes, new byte[512]));
        Assert.Contains("InvalidArgument", refused.Message, StringComparison.Ordinal);
        await using NbdClient other = await NbdClient.ConnectUnixAsync(server.SocketPath, "disk", "qemu:dirty-bitmap:none");
        Assert.False(other.HasBlockStatus);
        await other.ReadAsync(2 << 20, data);
    }

    [Fact]
    public async Task An_export_that_is_not_there_is_named()
    {
        await using TestServer server = await TestServer.StartAsync(new MemoryExport("disk", MemoryExport.FullInfo(DiskBytes)));
        IOException refused = await Assert.ThrowsAsync<IOException>(() => NbdClient.ConnectUnixAsync(server.SocketPath, "other"));
        Assert.Contains("'other'", refused.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_request_that_fails_says_what_and_why_and_the_next_one_works()
    {
        NbdExportInfo info = MemoryExport.FullInfo(DiskBytes) with { IsReadOnly = true };
        await using TestServer server = await TestServer.StartAsync(new MemoryExport("", info));
        await using NbdClient client = await NbdClient.ConnectUnixAsync(server.SocketPath, "");
        NbdRequestException refused = await Assert.ThrowsAsync<NbdRequestException>(() => client.WriteAsync(4096, new byte[512]));
        Assert.Contains("Write of 512 bytes at 4096", refused.Message, StringComparison.Ordinal);
        Assert.Contains("NotPermitted", refused.Message, StringComparison.Ordinal);
        await client.ReadAsync(0, new byte[512]);
    }

    [Fact]
    public async Task Requests_are_under_way_side_by_side_and_are_answered_in_any_order()
    {
        var held = new ConcurrentQueue<NbdRequest>();
        var export = new MemoryExport("", MemoryExport.FullInfo(DiskBytes));
        await using TestServer server = await TestServer.StartAsync(export);
        await using NbdClient client = await NbdClient.ConnectUnixAsync(server.SocketPath, "");
        for (int i = 0; i < 16; i++)
            await client.WriteAsync(i * 65536, Enumerable.Repeat((byte)(i + 1), 65536).ToArray());
        export.Intercept = request =>
        {
            held.Enqueue(request);
            return true;
        };
        byte[][] read = [.. Enumerable.Range(0, 16).Select(_ => new byte[65536])];
        Task[] reads = [.. read.Select((buffer, i) => client.ReadAsync(i * 65536, buffer))];
        await Eventually.IsTrueAsync(() => held.Count == 16);
        foreach (NbdRequest request in held.Reverse())
        {
            request.Buffer.Span.Fill(export.Contents[request.Offset]);
            request.Complete(NbdError.None);
        }
        await Task.WhenAll(reads);
        Assert.All(read, (buffer, i) => Assert.Equal(-1, buffer.AsSpan().IndexOfAnyExcept((byte)(i + 1))));
    }

    [Fact]
    public async Task Block_status_tells_what_was_written()
    {
        await using TestServer server = await TestServer.StartAsync(new MemoryExport("", MemoryExport.FullInfo(DiskBytes)));
        await using NbdClient client = await NbdClient.ConnectAsync(new NbdClientOptions
        {
            Server = new UnixDomainSocketEndPoint(server.SocketPath),
            MetaContext = "base:allocation",
        });
        await client.WriteAsync(8192, new byte[4096]);
        Assert.Equal([new NbdExtent(8192, 3), new NbdExtent(4096, 0), new NbdExtent(DiskBytes - 12288, 3)],
            await client.GetBlockStatusAsync(0, DiskBytes));
        Assert.Equal([new NbdExtent(4096, 0)], await client.GetBlockStatusAsync(8192, 65536, onlyFirst: true));
    }

    [Fact]
    public async Task A_context_that_the_export_does_not_have_is_known_to_be_missing()
    {
        await using TestServer server = await TestServer.StartAsync(new MemoryExport("", MemoryExport.FullInfo(DiskBytes)));
        await using NbdClient client = await NbdClient.ConnectAsync(new NbdClientOptions
        {
            Server = new UnixDomainSocketEndPoint(server.SocketPath),
            MetaContext = "qemu:dirty-bitmap:none",
        });
        Assert.False(client.HasBlockStatus);
        await Assert.ThrowsAsync<InvalidOperationException>(() => client.GetBlockStatusAsync(0, 4096));
    }

    [Fact]
    public async Task When_the_server_goes_what_is_under_way_and_what_follows_fails()
    {
        var export = new MemoryExport("", MemoryExport.FullInfo(DiskBytes));
        NbdRequest? held = null;
        var server = await TestServer.StartAsync(export);
        await using NbdClient client = await NbdClient.ConnectUnixAsync(server.SocketPath, "");
        export.Intercept = request =>
        {
            held = request;
            return true;
        };
        Task read = client.ReadAsync(0, new byte[4096]);
        await Eventually.IsTrueAsync(() => held is not null);
        Task stopping = server.Server.StopAsync(TimeSpan.Zero);
        await Assert.ThrowsAsync<NbdConnectionException>(() => read);
        await Assert.ThrowsAsync<NbdConnectionException>(() => client.FlushAsync());
        Assert.True(client.HasFailed);
        held!.Complete(NbdError.None);
        await stopping;
        await server.DisposeAsync();
    }

    [Theory]
    [InlineData("--oldstyle")]
    [InlineData("--mask-handshake=0")]
    [InlineData("--mask-handshake=1")]
    [InlineData("--no-sr")]
    public async Task Servers_that_know_less_are_served_too(string option)
    {
        string directory = Directory.CreateTempSubdirectory("nbd-").FullName;
        string path = Path.Combine(directory, "socket");
        using var nbdkit = Process.Start("sh", ["-c", $"nbdkit -f {option} -U {path} memory 1M; exit $?"]); // as for Tool.RunScriptAsync
        await Eventually.IsTrueAsync(() => File.Exists(path));
        await using (NbdClient client = await NbdClient.ConnectUnixAsync(path, ""))
        {
            Assert.Equal(1 << 20, client.Bytes);
            byte[] data = [.. Enumerable.Repeat((byte)7, 5000)];
            await client.WriteAsync(100, data);
            byte[] read = new byte[5000];
            await client.ReadAsync(100, read);
            Assert.Equal(data, read);
        }
        nbdkit.Kill(entireProcessTree: true);
        await nbdkit.WaitForExitAsync();
        Directory.Delete(directory, recursive: true);
    }

    /// <summary>The server answers one READ of 512 bytes at 0, whose cookie is 1, in a way that the protocol forbids.</summary>
    [Theory]
    [InlineData("a reply to no request", "67446698 00000000 0000000000000009")]
    [InlineData("no reply to a request", "12345678 00000000 0000000000000001")]
    [InlineData("a simple reply to a read", "67446698 00000000 0000000000000001")]
    [InlineData("a chunk outside the request", "668e33ef 0000 0001 0000000000000001 0000000a 00000000000001ff 0000")]
    [InlineData("a chunk outside the request", "668e33ef 0000 0002 0000000000000001 0000000c ffffffffffffffff 00000001")]
    [InlineData("a chunk outside the request", "668e33ef 0000 0001 0000000000000001 ffffffff 0000000000000000")]
    [InlineData("a part of a read is missing", "668e33ef 0001 0002 0000000000000001 0000000c 0000000000000000 000001ff")]
    [InlineData("a part of a read is missing", "668e33ef 0001 0000 0000000000000001 00000000")]
    [InlineData("a block status that was not asked for", "668e33ef 0000 0005 0000000000000001 0000000c 00000000 00000200 00000000")]
    [InlineData("a chunk of type 3 with 4 bytes", "668e33ef 0000 0003 0000000000000001 00000004 00000000")]
    [InlineData("a chunk of type 32769 with 8193 bytes", "668e33ef 0001 8001 0000000000000001 00002001 00000000")]
    [InlineData("an error longer than its chunk", "668e33ef 0001 8001 0000000000000001 00000006 00000005 0001")]
    [InlineData("the server has closed the connection", "668e33ef 0001")]
    public async Task A_server_that_breaks_the_protocol_is_left_with_what_it_did(string what, string reply)
    {
        const string handshake = "4e42444d41474943 49484156454f5054 0003"
            + "0003e889045565a9 00000008 00000001 00000000" // STRUCTURED_REPLY
            + "0003e889045565a9 00000007 00000003 0000000c 0000 0000000000100000 0001" // GO
            + "0003e889045565a9 00000007 00000001 00000000";
        string path = Path.Combine(Directory.CreateTempSubdirectory("nbd-").FullName, "socket");
        using var listener = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        listener.Bind(new UnixDomainSocketEndPoint(path));
        listener.Listen();
        Task<NbdClient> connecting = NbdClient.ConnectUnixAsync(path, "");
        using Socket peer = await listener.AcceptAsync();
        await peer.SendAsync(Bytes(handshake));
        await using NbdClient client = await connecting;
        Task read = client.ReadAsync(0, new byte[512]);
        await peer.SendAsync(Bytes(reply));
        peer.Shutdown(SocketShutdown.Send);
        NbdConnectionException broken = await Assert.ThrowsAsync<NbdConnectionException>(() => read);
        Assert.Contains(what, broken.Message, StringComparison.Ordinal);
        Directory.Delete(Path.GetDirectoryName(path)!, recursive: true);
    }

    [Theory]
    [InlineData("HTTP/1.1 400 Bad Request\r\n\r\n")]
    [InlineData("NBDMAGIC")]
    [InlineData("")]
    public async Task A_peer_that_does_not_speak_nbd_is_an_error_and_not_a_hang(string greeting)
    {
        string path = Path.Combine(Directory.CreateTempSubdirectory("nbd-").FullName, "socket");
        using var listener = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        listener.Bind(new UnixDomainSocketEndPoint(path));
        listener.Listen();
        Task<NbdClient> connecting = NbdClient.ConnectUnixAsync(path, "");
        using (Socket peer = await listener.AcceptAsync())
            await peer.SendAsync(System.Text.Encoding.ASCII.GetBytes(greeting));
        await Assert.ThrowsAnyAsync<IOException>(() => connecting);
        Directory.Delete(Path.GetDirectoryName(path)!, recursive: true);
    }

    [Fact]
    public async Task Nobody_at_the_address_is_an_error_that_names_it()
    {
        IOException refused = await Assert.ThrowsAsync<IOException>(() => NbdClient.ConnectUnixAsync("/nowhere/socket", ""));
        Assert.Contains("/nowhere/socket", refused.Message, StringComparison.Ordinal);
    }

    private static byte[] Bytes(string hexadecimal) => Convert.FromHexString(hexadecimal.Replace(" ", "", StringComparison.Ordinal));
}
