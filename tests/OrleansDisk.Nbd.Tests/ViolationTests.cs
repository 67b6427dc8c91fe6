using OrleansDisk.Nbd.Protocol;
using OrleansDisk.Nbd.Server;
using OrleansDisk.Nbd.Tests.Fixtures;

namespace OrleansDisk.Nbd.Tests;

/// <summary>Requests that break the rules: the protocol's error or a closed connection, and no one else notices.</summary>
public sealed class ViolationTests
{
    private const uint ExportBytes = 1 << 20;

    private static MemoryExport Export(NbdExportInfo? info = null, bool isAsynchronous = false) =>
        new("", info ?? MemoryExport.FullInfo(ExportBytes)) { IsAsynchronous = isAsynchronous };

    [Theory]
    [InlineData(NbdCommand.Read, ExportBytes - 1, 2, NbdError.InvalidArgument)]
    [InlineData(NbdCommand.Read, ulong.MaxValue, 1, NbdError.InvalidArgument)]
    [InlineData(NbdCommand.Write, ExportBytes, 1, NbdError.NoSpace)]
    [InlineData(NbdCommand.Write, ulong.MaxValue, 100, NbdError.NoSpace)]
    [InlineData(NbdCommand.WriteZeroes, 4096, ExportBytes, NbdError.NoSpace)]
    [InlineData(NbdCommand.WriteZeroes, 1ul << 63, uint.MaxValue, NbdError.NoSpace)]
    [InlineData(NbdCommand.Trim, 4096, ExportBytes, NbdError.InvalidArgument)]
    [InlineData(NbdCommand.Cache, 0, ExportBytes + 1, NbdError.InvalidArgument)]
    [InlineData(NbdCommand.BlockStatus, 1, ExportBytes, NbdError.InvalidArgument)]
    public async Task A_range_past_the_end_is_an_error(NbdCommand command, ulong offset, uint length, NbdError error)
    {
        await using TestServer server = await TestServer.StartAsync(Export());
        using RawClient client = server.Go(blockStatus: true);
        byte[]? payload = command == NbdCommand.Write ? new byte[length] : null;
        ReplyChunk reply = client.Request(command, offset, length, payload: payload);
        Assert.Equal(error, reply.Error);
        Assert.Contains("past the end", reply.Message);
        Assert.Equal(NbdError.None, client.Write(0, new byte[10]).Error);
        Assert.Single(server.Lines);
    }

    [Theory]
    [InlineData(NbdCommand.Read, 0x10)]
    [InlineData(NbdCommand.Read, 0x2)]
    [InlineData(NbdCommand.Write, 0x20)]
    [InlineData(NbdCommand.Write, 0x4)]
    [InlineData(NbdCommand.WriteZeroes, 0x4)]
    [InlineData(NbdCommand.Trim, 0x2)]
    [InlineData(NbdCommand.Flush, 0x8000)]
    [InlineData(NbdCommand.Cache, 0x2)]
    [InlineData(NbdCommand.BlockStatus, 0x4)]
    public async Task A_flag_that_the_command_does_not_have_is_invalid(NbdCommand command, int flags)
    {
        await using TestServer server = await TestServer.StartAsync(Export());
        using RawClient client = server.Go(blockStatus: true);
        byte[]? payload = command == NbdCommand.Write ? new byte[512] : null;
        uint length = command == NbdCommand.Flush ? 0u : 512;
        Assert.Equal(NbdError.InvalidArgument, client.Request(command, 0, length, (NbdCommandFlags)flags, payload).Error);
        Assert.Equal(NbdError.None, client.Write(0, new byte[10]).Error);
    }

    [Theory]
    [InlineData(NbdCommand.Trim)]
    [InlineData(NbdCommand.WriteZeroes)]
    [InlineData(NbdCommand.Cache)]
    [InlineData(NbdCommand.BlockStatus)]
    [InlineData((NbdCommand)8)]
    [InlineData((NbdCommand)0xffff)]
    public async Task A_command_that_was_not_offered_is_invalid(NbdCommand command)
    {
        await using TestServer server = await TestServer.StartAsync(Export(new NbdExportInfo(ExportBytes)));
        using RawClient client = server.Go();
        Assert.Equal(NbdError.InvalidArgument, client.Request(command, 0, 512).Error);
        Assert.Equal(NbdError.None, client.Write(0, new byte[10]).Error);
    }

    [Fact]
    public async Task Flags_that_were_not_negotiated_are_invalid()
    {
        NbdExportInfo info = MemoryExport.FullInfo(ExportBytes) with { CanFastZero = false };
        await using TestServer server = await TestServer.StartAsync(Export(info));
        using RawClient client = server.Go(structured: false);
        Assert.Equal(
            NbdError.InvalidArgument, client.Request(NbdCommand.WriteZeroes, 0, 512, NbdCommandFlags.FastZero).Error);
        Assert.Equal(
            NbdError.InvalidArgument, client.Request(NbdCommand.Read, 0, 512, NbdCommandFlags.DontFragment).Error);
        Assert.Equal(NbdError.InvalidArgument, client.Request(NbdCommand.BlockStatus, 0, 512).Error);
    }

    [Theory]
    [InlineData(NbdCommand.Write)]
    [InlineData(NbdCommand.WriteZeroes)]
    [InlineData(NbdCommand.Trim)]
    public async Task A_read_only_export_permits_no_change(NbdCommand command)
    {
        MemoryExport export = Export(MemoryExport.FullInfo(ExportBytes) with { IsReadOnly = true });
        await using TestServer server = await TestServer.StartAsync(export);
        using RawClient client = server.Go();
        byte[]? payload = command == NbdCommand.Write ? [1, 2, 3, 4] : null;
        Assert.Equal(NbdError.NotPermitted, client.Request(command, 0, 4, payload: payload).Error);
        Assert.Equal(new byte[4], client.Read(0, 4));
        Assert.Equal(NbdError.None, client.Request(NbdCommand.Flush, 0, 0).Error);
    }

    [Theory]
    [InlineData(NbdCommand.Read, 256, 512)]
    [InlineData(NbdCommand.Write, 512, 700)]
    [InlineData(NbdCommand.Trim, 1, 511)]
    public async Task A_range_off_the_minimum_block_size_is_invalid(NbdCommand command, ulong offset, uint length)
    {
        NbdExportInfo info = MemoryExport.FullInfo(ExportBytes) with { MinimumBlockBytes = 512 };
        await using TestServer server = await TestServer.StartAsync(Export(info));
        using RawClient client = server.Go();
        byte[]? payload = command == NbdCommand.Write ? new byte[length] : null;
        ReplyChunk reply = client.Request(command, offset, length, payload: payload);
        Assert.Equal(NbdError.InvalidArgument, reply.Error);
        Assert.Contains("minimum block size 512", reply.Message);
        Assert.Equal(NbdError.None, client.Write(512, new byte[512]).Error);
    }

    [Theory]
    [InlineData(NbdCommand.Read, 0, 0)]
    [InlineData(NbdCommand.Write, 0, 0)]
    [InlineData(NbdCommand.Trim, 0, 0)]
    [InlineData(NbdCommand.Flush, 512, 0)]
    [InlineData(NbdCommand.Flush, 0, 512)]
    public async Task Empty_ranges_and_flushes_of_a_range_are_invalid(NbdCommand command, ulong offset, uint length)
    {
        await using TestServer server = await TestServer.StartAsync(Export());
        using RawClient client = server.Go();
        Assert.Equal(NbdError.InvalidArgument, client.Request(command, offset, length).Error);
        Assert.Equal(NbdError.None, client.Write(0, new byte[10]).Error);
    }

    [Fact]
    public async Task A_wrong_request_magic_closes_after_the_requests_before_it_are_answered()
    {
        await using TestServer server = await TestServer.StartAsync(Export());
        using RawClient bystander = server.Go();
        using RawClient client = server.Go();
        byte[] packet = new byte[2 * RequestHeader.HeaderBytes];
        new RequestHeader(NbdMagic.Request, 0, NbdCommand.Flush, 1, 0, 0).WriteTo(packet);
        new RequestHeader(0x12560953, 0, NbdCommand.Flush, 2, 0, 0).WriteTo(packet.AsSpan(RequestHeader.HeaderBytes));
        client.Send(packet);
        Assert.Equal(1u, client.ReceiveReply().Cookie);
        client.IsClosed();
        Assert.Contains("magic 0x12560953", Assert.Single(server.Lines));
        Assert.Equal(NbdError.None, bystander.Write(0, new byte[10]).Error);
    }

    [Fact]
    public async Task A_write_too_long_to_skip_closes()
    {
        await using TestServer server = await TestServer.StartAsync(Export());
        using RawClient client = server.Go();
        client.SendRequest(NbdCommand.Write, 1, 0, uint.MaxValue);
        client.IsClosed();
        Assert.Equal(2, server.Lines.Count);
    }

    [Fact]
    public async Task Endless_violations_of_one_client_are_few_lines()
    {
        await using TestServer server = await TestServer.StartAsync(Export());
        using RawClient client = server.Go();
        for (int i = 0; i < 100; i++)
            client.Request(NbdCommand.Read, 0, 0);
        Assert.Equal(8, server.Lines.Count);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_client_that_vanishes_anywhere_leaves_nothing_behind(bool isAsynchronous)
    {
        MemoryExport export = Export(isAsynchronous: isAsynchronous);
        await using TestServer server = await TestServer.StartAsync(export);
        byte[] message = new byte[RequestHeader.HeaderBytes + 70_000];
        new RequestHeader(NbdMagic.Request, 0, NbdCommand.Write, 2, 0, 70_000).WriteTo(message);
        foreach (int sent in new[] { 0, 1, 27, 28, 29, 5000, 69_000 })
        {
            using RawClient client = server.Go();
            client.SendRequest(NbdCommand.Read, 1, 0, 500_000);
            client.Send(message.AsSpan(0, sent));
        }
        await Eventually.IsTrueAsync(() => server.Server.ConnectionCount == 0);
        Assert.Equal(0, export.SessionCount);
        Assert.Equal(new byte[8], export.Contents[..8]);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public async Task Random_bytes_in_any_state_disturb_no_other_connection(int seed)
    {
        var random = new Random(seed);
        await using TestServer server = await TestServer.StartAsync(Export());
        using RawClient bystander = server.Go();
        for (int round = 0; round < 150; round++)
        {
            using RawClient client = Enter(server, round % 5);
            byte[] noise = new byte[random.Next(1, 3000)];
            random.NextBytes(noise);
            Disguise(noise, round % 5, random);
            try
            {
                client.Send(noise);
                client.Socket.Shutdown(System.Net.Sockets.SocketShutdown.Send);
            }
            catch (System.Net.Sockets.SocketException)
            {
                // Closed before all of it was sent, which is as good.
            }
            client.IsClosed();
            byte[] mine = BitConverter.GetBytes(round);
            Assert.Equal(NbdError.None, bystander.Write(ExportBytes - 8, mine).Error);
            Assert.Equal(mine, bystander.Read(ExportBytes - 8, 4));
        }
        await Eventually.IsTrueAsync(() => server.Server.ConnectionCount == 1);
        Assert.DoesNotContain(server.Lines, line => line.Contains("fault") || line.Contains("failed"));
    }

    [Fact]
    public async Task An_export_that_throws_fails_its_requests_and_closes_its_connection_only()
    {
        MemoryExport export = Export();
        await using TestServer server = await TestServer.StartAsync(export);
        using RawClient bystander = server.Go();
        using RawClient client = server.Go();
        export.Intercept = request => request.Offset == 4096 ? throw new InvalidDataException("a bug") : false;
        Assert.Equal(NbdError.InputOutput, client.Request(NbdCommand.Read, 4096, 512).Error);
        client.IsClosed();
        Assert.Contains("InvalidDataException: a bug", Assert.Single(server.Lines));
        Assert.Equal(NbdError.None, bystander.Write(0, new byte[10]).Error);
    }

    private static RawClient Enter(TestServer server, int state)
    {
        if (state >= 3)
            return server.Go(blockStatus: state == 4);
        RawClient client = server.Connect();
        if (state == 1)
            client.Receive(18);
        if (state == 2)
            client.Greet();
        return client;
    }

    /// <summary>Makes the noise look right at its start, so that more of it is looked at.</summary>
    private static void Disguise(byte[] noise, int state, Random random)
    {
        if (state == 2 && noise.Length >= 16)
        {
            byte[] option = [.. Wire.U64(NbdMagic.Option), .. Wire.U32((uint)random.Next(12)), .. Wire.U32((uint)random.Next(3000))];
            option.CopyTo(noise, 0);
        }
        for (int at = 0; state >= 3 && at + RequestHeader.HeaderBytes <= noise.Length; at += RequestHeader.HeaderBytes)
        {
            var header = new RequestHeader(
                NbdMagic.Request, (NbdCommandFlags)random.Next(64), (NbdCommand)random.Next(10), 1,
                (ulong)random.Next(1 << 19), (uint)random.Next(2000));
            // Writes among them take what follows as payload and lose step: the next header is noise.
            header.WriteTo(noise.AsSpan(at));
        }
    }
}
