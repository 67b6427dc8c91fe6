using System.Net.Sockets;
using OrleansDisk.Nbd.Client;
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
        Assert.True(client.HasContext);
        byte[] data = new byte[1 << 20];
        new Random(2).NextBytes(data);
        await client.WriteAsync(2 << 20, data);
        Assert.Equal(new NbdExtent(2 << 20, 3), await client.GetExtentAsync(0, DiskBytes));
        Assert.Equal(new NbdExtent(1 << 20, 0), await client.GetExtentAsync(2 << 20, DiskBytes - (2 << 20)));
        byte[] read = new byte[3 << 20];
        Array.Fill(read, (byte)1);
        await client.ReadAsync(1 << 20, read);
        Assert.Equal([.. new byte[1 << 20], .. data, .. new byte[1 << 20]], read);
        IOException refused = await Assert.ThrowsAsync<IOException>(() => client.ReadAsync(DiskBytes, new byte[512]));
        Assert.Contains("InvalidArgument", refused.Message, StringComparison.Ordinal);
        await using NbdClient other = await NbdClient.ConnectUnixAsync(server.SocketPath, "disk", "qemu:dirty-bitmap:none");
        Assert.False(other.HasContext);
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
        IOException refused = await Assert.ThrowsAsync<IOException>(() => client.WriteAsync(4096, new byte[512]));
        Assert.Contains("Write of 512 bytes at 4096", refused.Message, StringComparison.Ordinal);
        Assert.Contains("NotPermitted", refused.Message, StringComparison.Ordinal);
        await client.ReadAsync(0, new byte[512]);
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
}
