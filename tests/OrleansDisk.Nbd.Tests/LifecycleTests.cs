using System.Collections.Concurrent;
using System.Net;
using System.Net.Sockets;
using OrleansDisk.Nbd.Protocol;
using OrleansDisk.Nbd.Server;
using OrleansDisk.Nbd.Tests.Fixtures;

namespace OrleansDisk.Nbd.Tests;

/// <summary>Listening, stopping, counting connections.</summary>
public sealed class LifecycleTests : IDisposable
{
    private readonly DirectoryInfo _directory = Directory.CreateTempSubdirectory("nbd-");

    private string SocketPath => Path.Combine(_directory.FullName, "socket");

    private static MemoryExport Export() => new("", MemoryExport.FullInfo(8 << 20));

    public void Dispose() => _directory.Delete(recursive: true);

    private static NbdServer Server(params NbdListenAddress[] addresses)
    {
        MemoryExport export = Export();
        return new NbdServer(addresses, () => [export]);
    }

    [Fact]
    public async Task Stop_lets_requests_in_flight_complete_and_refuses_new_connections()
    {
        MemoryExport export = Export();
        var held = new ConcurrentQueue<NbdRequest>();
        export.Intercept = request =>
        {
            held.Enqueue(request);
            return true;
        };
        await using TestServer server = await TestServer.StartAsync(export);
        using RawClient client = server.Go();
        client.SendRequest(NbdCommand.Read, 1, 0, 4096);
        client.SendRequest(NbdCommand.Flush, 2, 0, 0);
        await Eventually.IsTrueAsync(() => held.Count == 2);
        Task stopping = server.Server.StopAsync(TimeSpan.FromMinutes(1));
        await Eventually.IsTrueAsync(() => !File.Exists(server.SocketPath));
        Assert.False(stopping.IsCompleted);
        foreach (NbdRequest request in held)
            request.Complete(NbdError.None);
        Assert.Equal(1u, client.ReceiveReply().Cookie);
        Assert.Equal(2u, client.ReceiveReply().Cookie);
        client.IsClosed();
        await stopping;
        Assert.Equal(0, export.SessionCount);
        Assert.Empty(server.Lines);
    }

    [Fact]
    public async Task Stop_cuts_off_a_client_that_does_not_read_when_the_drain_time_is_over()
    {
        var time = new ManualTime();
        MemoryExport export = Export();
        export.Allocate();
        await using TestServer server = await TestServer.StartAsync(
            log => new NbdServerOptions { TimeProvider = time, Log = log }, export);
        using RawClient client = server.Go();
        client.SendRequest(NbdCommand.Read, 1, 0, 8 << 20);
        await Eventually.IsTrueAsync(() => client.Socket.Available > 0);
        Task stopping = server.Server.StopAsync(TimeSpan.FromSeconds(5));
        await Eventually.IsTrueAsync(() => time.TimerCount == 1);
        Assert.False(stopping.IsCompleted);
        time.Advance(TimeSpan.FromSeconds(5));
        await stopping;
        Assert.Equal(0, export.SessionCount);
    }

    [Fact]
    public async Task Stop_ends_handshakes_and_idle_clients_at_once()
    {
        await using TestServer server = await TestServer.StartAsync(Export());
        using RawClient idle = server.Go();
        using RawClient early = server.Connect();
        early.Greet();
        await Eventually.IsTrueAsync(() => server.Server.ConnectionCount == 2);
        await server.Server.StopAsync(TimeSpan.FromMinutes(1));
        idle.IsClosed();
        early.IsClosed();
        Assert.Empty(server.Lines);
    }

    [Fact]
    public async Task The_number_of_connections_is_told_at_each_change()
    {
        await using TestServer server = await TestServer.StartAsync(Export());
        var counts = new ConcurrentQueue<int>();
        server.Server.ConnectionCountChanged += counts.Enqueue;
        using (server.Go())
        using (server.Go())
        {
        }
        await Eventually.IsTrueAsync(() => counts.Count == 4);
        Assert.Equal(1, counts.First());
        Assert.Equal(0, counts.Last());
    }

    [Fact]
    public async Task A_socket_left_behind_by_a_dead_server_is_replaced_and_removed_on_stop()
    {
        string other = SocketPath + ".bound";
        using (var dead = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified))
        {
            dead.Bind(new UnixDomainSocketEndPoint(other));
            // Closing removes the name it was bound to, so the file goes by another one before.
            File.Move(other, SocketPath);
        }
        Assert.True(File.Exists(SocketPath));
        await using (NbdServer server = Server(NbdListenAddress.Unix(SocketPath)))
        {
            await server.StartAsync();
            await Tool.RunAsync("nbdinfo", $"nbd+unix:///?socket={SocketPath}");
        }
        Assert.False(File.Exists(SocketPath));
    }

    [Fact]
    public async Task A_socket_that_someone_listens_on_is_in_use()
    {
        await using NbdServer first = Server(NbdListenAddress.Unix(SocketPath));
        await first.StartAsync();
        await using NbdServer second = Server(NbdListenAddress.Unix(SocketPath));
        IOException e = await Assert.ThrowsAsync<IOException>(() => second.StartAsync());
        Assert.Contains($"'{SocketPath}': address in use", e.Message);
        await second.StopAsync(TimeSpan.Zero);
        await Tool.RunAsync("nbdinfo", $"nbd+unix:///?socket={SocketPath}");
    }

    [Fact]
    public async Task A_file_that_is_no_socket_is_left_alone()
    {
        await File.WriteAllTextAsync(SocketPath, "precious");
        await using NbdServer server = Server(NbdListenAddress.Unix(SocketPath));
        IOException e = await Assert.ThrowsAsync<IOException>(() => server.StartAsync());
        Assert.Contains("not a socket", e.Message);
        Assert.Equal("precious", await File.ReadAllTextAsync(SocketPath));
    }

    [Fact]
    public async Task Bad_addresses_are_named()
    {
        await Fails(NbdListenAddress.Unix(Path.Combine(_directory.FullName, new string('x', 200))), "1 to 107 bytes");
        await Fails(NbdListenAddress.Unix(Path.Combine(_directory.FullName, "none", "socket")), "none");
        await Fails(NbdListenAddress.Tcp("localhost", 70_000), "70000");
        await Fails(NbdListenAddress.Tcp("no.such.host.invalid", 0), "no.such.host.invalid");

        static async Task Fails(NbdListenAddress address, string words)
        {
            await using NbdServer server = Server(address);
            Assert.Contains(words, (await Assert.ThrowsAsync<IOException>(() => server.StartAsync())).Message);
        }
    }

    [Fact]
    public async Task A_tcp_port_in_use_is_named()
    {
        await using NbdServer first = Server(NbdListenAddress.Tcp("127.0.0.1", 0));
        await first.StartAsync();
        int port = ((IPEndPoint)first.EndPoints[0]).Port;
        await using NbdServer second = Server(NbdListenAddress.Tcp("127.0.0.1", port));
        IOException e = await Assert.ThrowsAsync<IOException>(() => second.StartAsync());
        Assert.Contains($"port {port}: address in use", e.Message);
    }

    [Fact]
    public async Task A_socket_that_listens_already_and_several_addresses_are_served()
    {
        using var listening = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        listening.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        listening.Listen();
        int port = ((IPEndPoint)listening.LocalEndPoint!).Port;
        await using NbdServer server = Server(
            NbdListenAddress.Existing(listening), NbdListenAddress.Unix(SocketPath), NbdListenAddress.Tcp("", 0));
        await server.StartAsync();
        await Tool.RunAsync("nbdinfo", $"nbd://127.0.0.1:{port}");
        await Tool.RunAsync("nbdinfo", $"nbd+unix:///?socket={SocketPath}");
        await Tool.RunAsync("nbdinfo", $"nbd://127.0.0.1:{((IPEndPoint)server.EndPoints[2]).Port}");
        Assert.Equal(3, server.EndPoints.Count);
    }
}
