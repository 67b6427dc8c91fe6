using System.Globalization;
using OrleansDisk.Nbd.Protocol;
using OrleansDisk.Nbd.Tests.Fixtures;

namespace OrleansDisk.Nbd.Tests.Misuse;

/// <summary>
/// Seeded clients that break the protocol in every state of it: the server answers as the protocol says or closes, serves
/// everybody else meanwhile, and keeps nothing of them. No other tests run meanwhile: their memory would count.
/// </summary>
[CollectionDefinition(nameof(MisuseTests), DisableParallelization = true)]
[Collection(nameof(MisuseTests))]
public sealed class MisuseTests
{
    private const uint ExportBytes = 1 << 20;
    private const int DefaultCount = 1500;
    private const int AtOnce = 4;
    private static readonly TimeSpan _patience = TimeSpan.FromSeconds(60);

    /// <summary>Far below what the sessions together ask the server to hold.</summary>
    private const long MaxGrowthBytes = 96 << 20;

    [Theory]
    [InlineData(false, false)]
    [InlineData(true, false)]
    [InlineData(false, true)]
    public async Task Clients_that_break_the_protocol_are_answered_or_closed_and_disturb_nobody(bool isAsynchronous, bool isReadOnly)
    {
        int first = Number("ODISK_NBD_SEED", 1);
        int count = Number("ODISK_NBD_SESSIONS", Environment.GetEnvironmentVariable("ODISK_NBD_SEED") is null ? DefaultCount : 1);
        var export = new MemoryExport("", MemoryExport.FullInfo(ExportBytes) with { IsReadOnly = isReadOnly }) { IsAsynchronous = isAsynchronous };
        await using TestServer server = await TestServer.StartAsync(export);
        using RawClient bystander = server.Go();
        var failures = new List<string>();
        long before = GC.GetTotalMemory(forceFullCollection: true);
        for (int seed = first; seed < first + count && failures.Count < 5; seed += AtOnce)
        {
            int[] seeds = [.. Enumerable.Range(seed, Math.Min(AtOnce, first + count - seed))];
            Task[] sessions = [.. seeds.Select(one => Task.Run(() => Run(one, server, isReadOnly, failures)))];
            // Served while the others do what they do.
            byte[] mine = BitConverter.GetBytes(seed);
            NbdError error = bystander.Write(ExportBytes - 8, mine).Error;
            Assert.Equal(isReadOnly ? NbdError.NotPermitted : NbdError.None, error);
            Assert.Equal(isReadOnly ? new byte[4] : mine, bystander.Read(ExportBytes - 8, 4));
            await Task.WhenAll(sessions).WaitAsync(_patience);
        }
        await Eventually.IsTrueAsync(() => server.Server.ConnectionCount == 1 && export.SessionCount == 1);
        Assert.True(failures.Count == 0, string.Join("\n\n", failures));
        Assert.DoesNotContain(server.Lines, line => line.Contains("fault") || line.Contains("failed"));
        server.Lines.Clear();
        long growth = GC.GetTotalMemory(forceFullCollection: true) - before;
        Assert.True(growth < MaxGrowthBytes, $"{growth >> 20} MiB more are in use after {count} sessions");
    }

    [Fact]
    public async Task A_client_that_sends_byte_by_byte_is_served_like_any_other()
    {
        await using TestServer server = await TestServer.StartAsync(new MemoryExport("", MemoryExport.FullInfo(ExportBytes)));
        using RawClient client = server.Connect();
        client.Greet();
        byte[] request = new byte[RequestHeader.HeaderBytes + 3];
        new RequestHeader(NbdMagic.Request, 0, NbdCommand.Write, 9, 5, 3).WriteTo(request);
        request[^1] = 0x77;
        byte[] all = [.. Wire.U64(NbdMagic.Option), .. Wire.U32(7), .. Wire.U32(6), .. Wire.Info(""), .. request];
        foreach (byte one in all)
            client.Send([one]);
        Assert.Equal(32, client.Receive(32).Length); // NBD_INFO_EXPORT
        Assert.Equal(20, client.Receive(20).Length); // NBD_REP_ACK
        Assert.Equal(9u, client.ReceiveReply().Cookie);
        client.SendRequest(NbdCommand.Read, 10, 5, 3);
        Assert.Equal([0, 0, 0x77], client.ReceiveReply(simpleDataBytes: 3).Data);
    }

    [Fact]
    public async Task A_client_that_closes_its_sending_half_gets_every_reply_first()
    {
        var export = new MemoryExport("", MemoryExport.FullInfo(ExportBytes)) { IsAsynchronous = true };
        await using TestServer server = await TestServer.StartAsync(export);
        using RawClient client = server.Go();
        for (ulong i = 0; i < 30; i++)
            client.SendRequest(NbdCommand.Read, i, i * 1000, 20_000, NbdCommandFlags.DontFragment);
        client.Socket.Shutdown(System.Net.Sockets.SocketShutdown.Send);
        HashSet<ulong> cookies = [.. Enumerable.Range(0, 30).Select(_ => client.ReceiveReply().Cookie)];
        Assert.Equal(30, cookies.Count);
        client.IsClosed();
    }

    [Fact]
    public async Task A_flood_of_options_whose_replies_nobody_reads_ends_at_the_handshakes_deadline()
    {
        var time = new ManualTime();
        await using TestServer server = await TestServer.StartAsync(
            log => new Nbd.Server.NbdServerOptions { Log = log, TimeProvider = time },
            new MemoryExport("", MemoryExport.FullInfo(ExportBytes)) { Description = new string('d', 4000) });
        using RawClient client = server.Connect();
        client.Greet();
        byte[] list = [.. Wire.U64(NbdMagic.Option), .. Wire.U32((uint)NbdOption.List), .. Wire.U32(0)];
        client.Socket.Blocking = false;
        // Both directions fill up: the server waits for its client, and takes no more from it.
        long sent = 0;
        await Eventually.IsTrueAsync(() =>
        {
            try
            {
                sent += client.Socket.Send(list.AsSpan((int)(sent % list.Length)));
                return false;
            }
            catch (System.Net.Sockets.SocketException e) when (e.SocketErrorCode == System.Net.Sockets.SocketError.WouldBlock)
            {
                return true;
            }
        });
        time.Advance(TimeSpan.FromSeconds(11));
        await Eventually.IsTrueAsync(() => server.Server.ConnectionCount == 0);
        using RawClient other = server.Go();
        Assert.Equal(NbdError.None, other.Write(0, new byte[10]).Error);
    }

    [Fact]
    public async Task Libnbd_with_its_own_checks_off_gets_an_error_for_each_bad_request_and_goes_on()
    {
        await using TestServer server = await TestServer.StartAsync(new MemoryExport("disk", MemoryExport.FullInfo(ExportBytes) with { MinimumBlockBytes = 512 }));
        string script = Path.Combine(AppContext.BaseDirectory, "Misuse", "unchecked_client.py");
        Assert.Equal("done\n", await Tool.RunAsync("/usr/bin/python3", script, server.Uri("disk")));
    }

    private static void Run(int seed, TestServer server, bool isReadOnly, List<string> failures)
    {
        var session = new MisuseSession(seed, server, ExportBytes, isReadOnly);
        try
        {
            session.Run();
        }
        catch (Exception e)
        {
            lock (failures)
            {
                failures.Add($"seed {seed}:\n  {session.Story}\n  again: ODISK_NBD_SEED={seed} dotnet test tests/OrleansDisk.Nbd.Tests "
                    + $"--filter MisuseTests\n{e}");
            }
        }
    }

    private static int Number(string variable, int otherwise) =>
        Environment.GetEnvironmentVariable(variable) is { } text ? int.Parse(text, CultureInfo.InvariantCulture) : otherwise;
}
