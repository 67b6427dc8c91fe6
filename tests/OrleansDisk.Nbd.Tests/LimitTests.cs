using System.Collections.Concurrent;
using OrleansDisk.Nbd.Protocol;
using OrleansDisk.Nbd.Server;
using OrleansDisk.Nbd.Tests.Fixtures;

namespace OrleansDisk.Nbd.Tests;

/// <summary>Connections, handshake time, bytes in flight, slow clients.</summary>
public sealed class LimitTests
{
    private const uint ExportBytes = 8 << 20;

    private static MemoryExport Export(bool isAsynchronous = false) =>
        new("", MemoryExport.FullInfo(ExportBytes)) { IsAsynchronous = isAsynchronous };

    [Fact]
    public async Task A_client_beyond_the_connection_limit_is_closed_and_a_place_is_free_again_later()
    {
        await using TestServer server = await TestServer.StartAsync(
            log => new NbdServerOptions { MaxConnections = 2, Log = log }, Export());
        using RawClient first = server.Go();
        using (server.Go())
        {
            using RawClient third = server.Connect();
            third.IsClosed();
            Assert.Contains("2 are open, which is the limit", Assert.Single(server.Lines));
        }
        await Eventually.IsTrueAsync(() => server.Server.ConnectionCount == 1);
        using RawClient fourth = server.Go();
        Assert.Equal(NbdError.None, fourth.Write(0, new byte[10]).Error);
    }

    [Fact]
    public async Task A_client_beyond_the_connection_limit_can_wait_for_its_turn()
    {
        await using TestServer server = await TestServer.StartAsync(
            log => new NbdServerOptions { MaxConnections = 1, WaitAtConnectionLimit = true, Log = log }, Export());
        RawClient first = server.Go();
        using RawClient second = server.Connect();
        Assert.False(second.Socket.Poll(0, System.Net.Sockets.SelectMode.SelectRead));
        first.Dispose();
        second.Greet();
        second.Go("");
        Assert.Empty(server.Lines);
    }

    [Fact]
    public async Task The_handshake_must_end_in_time_and_transmission_may_take_for_ever()
    {
        var time = new ManualTime();
        await using TestServer server = await TestServer.StartAsync(
            log => new NbdServerOptions { TimeProvider = time, Log = log }, Export());
        using RawClient done = server.Go();
        using RawClient idle = server.Connect();
        idle.Greet();
        idle.Acknowledged(NbdOption.StructuredReply, []);
        using RawClient mute = server.Connect();
        mute.Receive(18);
        await Eventually.IsTrueAsync(() => time.TimerCount == 2);
        time.Advance(TimeSpan.FromSeconds(9));
        idle.Acknowledged(NbdOption.List, []);
        time.Advance(TimeSpan.FromSeconds(1));
        idle.IsClosed();
        mute.IsClosed();
        await Eventually.IsTrueAsync(() => server.Lines.Count == 2);
        Assert.All(server.Lines, line => Assert.Contains("longer than 10 s", line));
        Assert.Equal(NbdError.None, done.Write(0, new byte[10]).Error);
    }

    [Theory]
    [InlineData(2 << 20, 100L << 20)]
    [InlineData(100 << 20, 1L << 20)]
    public async Task Reading_stops_at_the_limit_of_bytes_in_flight_and_goes_on_below_it(long perConnection, long total)
    {
        MemoryExport export = Export();
        var held = new ConcurrentQueue<NbdRequest>();
        export.Intercept = request =>
        {
            held.Enqueue(request);
            return true;
        };
        await using TestServer server = await TestServer.StartAsync(
            log => new NbdServerOptions
            {
                MaxBytesInFlightPerConnection = perConnection,
                MaxBytesInFlight = total,
                Log = log,
            },
            export);
        using RawClient client = server.Go();
        // Two MiB are allowed either way: of its own limit, or one of its own and one shared.
        for (uint i = 0; i < 20; i++)
            client.SendRequest(NbdCommand.Read, i, i * 4096, 200_000);
        await Eventually.IsTrueAsync(() => held.Count == 10);
        for (int i = 0; i < 20; i++)
        {
            await Eventually.IsTrueAsync(() => !held.IsEmpty);
            Assert.True(held.TryDequeue(out NbdRequest? request));
            Assert.InRange(held.Count, 0, 9);
            request.Complete(NbdError.None);
            client.ReceiveReply();
        }
    }

    [Fact]
    public async Task Clients_that_do_not_read_cannot_take_the_shared_bytes_from_the_others()
    {
        await using TestServer server = await TestServer.StartAsync(
            log => new NbdServerOptions { MaxBytesInFlight = 4 << 20, Log = log }, Export());
        RawClient[] slow = [.. Enumerable.Range(0, 6).Select(_ => server.Go())];
        foreach (RawClient client in slow)
        {
            for (uint i = 0; i < 8; i++)
                client.SendRequest(NbdCommand.Read, i, 0, 1 << 20);
        }
        using RawClient other = server.Go();
        byte[] large = new byte[4 << 20];
        for (int i = 0; i < 5; i++)
        {
            Assert.Equal(NbdError.None, other.Write(0, large).Error);
            Assert.Equal(4096, other.Read(0, 4096).Length);
        }
        foreach (RawClient client in slow)
        {
            for (int replies = 0; replies < 8;)
                replies += client.ReceiveReply().IsLast ? 1 : 0;
            client.Dispose();
        }
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_client_that_does_not_read_replies_blocks_no_thread_of_the_export(bool isAsynchronous)
    {
        MemoryExport export = Export(isAsynchronous);
        export.Allocate();
        await using TestServer server = await TestServer.StartAsync(export);
        using RawClient slow = server.Go();
        for (uint i = 0; i < 40; i++)
            slow.SendRequest(NbdCommand.Read, i, 0, 1 << 20, NbdCommandFlags.DontFragment);
        using RawClient other = server.Go();
        for (uint i = 0; i < 50; i++)
            Assert.Equal(NbdError.None, other.Write(i, new byte[100]).Error);
        // All of it is still there for whom it was made.
        HashSet<ulong> cookies = [.. Enumerable.Range(0, 40).Select(_ => slow.ReceiveReply().Cookie)];
        Assert.Equal(40, cookies.Count);
    }

    [Fact]
    public async Task A_client_that_sends_everything_before_it_reads_anything_gets_its_replies()
    {
        MemoryExport export = Export();
        export.Allocate();
        await using TestServer server = await TestServer.StartAsync(export);
        using RawClient client = server.Go();
        byte[] payload = new byte[1 << 20];
        // More than both sockets hold in either direction: a server that only sends would never take the writes.
        for (uint i = 0; i < 16; i++)
        {
            client.SendRequest(NbdCommand.Read, 2 * i, 0, 1 << 20);
            client.SendRequest(NbdCommand.Write, 2 * i + 1, 1 << 20, 1 << 20, payload: payload);
        }
        HashSet<ulong> cookies = [.. Enumerable.Range(0, 32).Select(_ => client.ReceiveReply().Cookie)];
        Assert.Equal(32, cookies.Count);
    }

    [Fact]
    public async Task Replies_that_fill_the_limit_of_bytes_in_flight_are_sent_when_the_client_reads()
    {
        MemoryExport export = Export();
        export.Allocate();
        await using TestServer server = await TestServer.StartAsync(
            log => new NbdServerOptions { MaxBytesInFlightPerConnection = 2 << 20, Log = log }, export);
        using RawClient client = server.Go();
        // The connection waits for the budget, and the budget for replies that the socket did not take.
        for (uint i = 0; i < 16; i++)
            client.SendRequest(NbdCommand.Read, i, 0, 1 << 20, NbdCommandFlags.DontFragment);
        HashSet<ulong> cookies = [.. Enumerable.Range(0, 16).Select(_ => client.ReceiveReply().Cookie)];
        Assert.Equal(16, cookies.Count);
    }

    [Fact]
    public async Task A_client_that_disconnects_before_it_reads_gets_its_replies()
    {
        MemoryExport export = Export();
        export.Allocate();
        await using TestServer server = await TestServer.StartAsync(export);
        using RawClient client = server.Go();
        for (uint i = 0; i < 4; i++)
            client.SendRequest(NbdCommand.Read, i, 0, 1 << 20, NbdCommandFlags.DontFragment);
        client.SendRequest(NbdCommand.Disconnect, 0, 0, 0);
        Assert.Equal(4, Enumerable.Range(0, 4).Count(_ => client.ReceiveReply().Data.Length == (1 << 20) + 8));
        client.IsClosed();
    }

    [Fact]
    public async Task Many_connections_at_once_are_served_and_all_end()
    {
        MemoryExport export = Export(isAsynchronous: true);
        await using TestServer server = await TestServer.StartAsync(export);
        await Parallel.ForAsync(0, 64, (i, _) =>
        {
            using RawClient client = server.Go();
            byte[] mine = new byte[1000];
            Array.Fill(mine, (byte)i);
            for (uint round = 0; round < 20; round++)
            {
                client.Write((uint)i * 5000, mine);
                Assert.Equal(mine, client.Read((uint)i * 5000, 1000));
            }
            return ValueTask.CompletedTask;
        });
        await Eventually.IsTrueAsync(() => server.Server.ConnectionCount == 0 && export.SessionCount == 0);
        Assert.Empty(server.Lines);
    }
}
