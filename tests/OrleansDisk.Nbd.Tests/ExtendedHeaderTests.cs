using System.Buffers.Binary;
using OrleansDisk.Nbd.Protocol;
using OrleansDisk.Nbd.Tests.Fixtures;

namespace OrleansDisk.Nbd.Tests;

/// <summary>Extended headers (the extension of that name of the NBD protocol), spoken by a client of this test's own.</summary>
public sealed class ExtendedHeaderTests
{
    private const int DiskBytes = 8 << 20;
    private const int Read = 0, Write = 1, Disconnect = 2, Flush = 3, Trim = 4, Cache = 5, WriteZeroes = 6, BlockStatus = 7;
    private const int PayloadFlag = ExtendedClient.PayloadFlag;

    [Fact]
    public async Task What_is_written_is_read_back_and_every_reply_has_an_extended_header()
    {
        await using TestServer server = await TestServer.StartAsync(Memory());
        using var client = new ExtendedClient(server);
        byte[] data = new byte[200_000];
        new Random(1).NextBytes(data);
        ExtendedChunk written = Assert.Single(client.Request(Write, 12_288, 200_000, PayloadFlag, data));
        Assert.Equal((0, 0), (written.Type, written.Data.Length));
        foreach (int command in (int[])[Flush, Trim, Cache, WriteZeroes])
            Assert.Equal(NbdError.None, client.ErrorOf(command, command == Flush ? 0u : 4 << 20, command == Flush ? 0u : 4096));
        byte[] read = new byte[300_000];
        long covered = 0;
        foreach (ExtendedChunk chunk in client.Request(Read, 8192, 300_000))
        {
            Assert.Contains(chunk.Type, (int[])[1, 2]);
            int at = (int)BinaryPrimitives.ReadUInt64BigEndian(chunk.Data) - 8192;
            int bytes = chunk.Type == 1 ? chunk.Data.Length - 8 : (int)BinaryPrimitives.ReadUInt32BigEndian(chunk.Data.AsSpan(8));
            if (chunk.Type == 1)
                chunk.Data.AsSpan(8).CopyTo(read.AsSpan(at));
            covered += bytes;
        }
        Assert.Equal(300_000, covered);
        Assert.Equal([.. new byte[4096], .. data, .. new byte[95_904]], read);
        client.Send(Disconnect, 0, 0);
        client.Raw.IsClosed();
        Assert.Empty(server.Lines);
    }

    [Theory]
    [InlineData(Trim)]
    [InlineData(Cache)]
    [InlineData(WriteZeroes)]
    public async Task Commands_without_a_payload_have_lengths_of_64_bits(int command)
    {
        var export = new HugeExport();
        await using TestServer server = await TestServer.StartAsync(export);
        using var client = new ExtendedClient(server);
        Assert.Equal(NbdError.None, client.ErrorOf(command, 4096, (3ul << 40) + 512));
        Assert.Equal(new SeenRequest((NbdCommand)command, 0, 4096, (3L << 40) + 512), Assert.Single(export.Seen));
        Assert.Equal(command == WriteZeroes ? NbdError.NoSpace : NbdError.InvalidArgument, client.ErrorOf(command, 4096, 4ul << 40));
        Assert.Equal(command == WriteZeroes ? NbdError.NoSpace : NbdError.InvalidArgument, client.ErrorOf(command, 1, ulong.MaxValue));
    }

    [Fact]
    public async Task Block_status_has_lengths_of_64_bits()
    {
        await using TestServer server = await TestServer.StartAsync(new HugeExport());
        using var client = new ExtendedClient(server, "base:allocation", "qemu:dirty-bitmap:changes");
        List<ExtendedChunk> chunks = client.Request(BlockStatus, 512, (4ul << 40) - 512);
        Assert.Equal(2, chunks.Count);
        Assert.Equal(client.Contexts[0], chunks[0].Status.Context);
        Assert.Equal([((1ul << 40) - 512, 3ul), (1ul << 40, 0ul), (2ul << 40, 3ul)], chunks[0].Status.Extents);
        Assert.Equal(client.Contexts[1], chunks[1].Status.Context);
        Assert.Equal([((4ul << 40) - 512, 8ul)], chunks[1].Status.Extents);
        Assert.Equal([(65536ul, 3ul)], client.Request(BlockStatus, 0, 65536, flags: 8)[0].Status.Extents);
    }

    [Fact]
    public async Task Without_extended_headers_lengths_stay_within_32_bits()
    {
        await using TestServer server = await TestServer.StartAsync(new HugeExport());
        using RawClient client = server.Go(blockStatus: true);
        ReplyChunk status = client.Request(NbdCommand.BlockStatus, 0, uint.MaxValue);
        Assert.Equal([.. Wire.U32(1), .. Wire.U32(uint.MaxValue), .. Wire.U32(3)], status.Data);
        ReplyChunk refused = client.Request(NbdCommand.Trim, 0, 4096, (NbdCommandFlags)PayloadFlag);
        Assert.Equal(NbdError.InvalidArgument, refused.Error);
    }

    [Fact]
    public async Task A_payload_of_block_status_chooses_contexts()
    {
        await using TestServer server = await TestServer.StartAsync(new HugeExport());
        using var client = new ExtendedClient(server, "base:allocation", "qemu:allocation-depth", "qemu:dirty-bitmap:changes");
        Assert.NotEqual(0, client.Raw.TransmissionFlags & (1 << 12));
        uint[] ids = client.Contexts;
        List<ExtendedChunk> one = Ask(1ul << 41, ids[2]);
        Assert.Equal((ids[2], 8ul), (Assert.Single(one).Status.Context, one[0].Status.Extents[0].Flags));
        Assert.Equal([ids[0], ids[1]], [.. Ask(1ul << 41, ids[1], ids[0]).Select(chunk => chunk.Status.Context).Order()]);
        foreach (List<ExtendedChunk> refused in (List<ExtendedChunk>[])[Ask(4096, ids[0], ids[0]), Ask(4096, 99), Ask(4096), Ask(5ul << 40, ids[0]),
            client.Request(BlockStatus, 0, 13, PayloadFlag, new byte[13]), client.Request(BlockStatus, 0, 4000, PayloadFlag, new byte[4000])])
        {
            Assert.Equal(NbdError.InvalidArgument, Assert.Single(refused).Error);
        }
        Assert.Equal(3, client.Request(BlockStatus, 0, 4096).Count);

        List<ExtendedChunk> Ask(ulong length, params uint[] contexts) => client.Request(
            BlockStatus, 0, 8 + (ulong)contexts.Length * 4, PayloadFlag, [.. Wire.U64(length), .. contexts.SelectMany(Wire.U32)]);
    }

    [Fact]
    public async Task A_payload_where_none_belongs_is_skipped_and_a_write_without_one_has_none()
    {
        await using TestServer server = await TestServer.StartAsync(Memory());
        using var client = new ExtendedClient(server);
        Assert.Equal(NbdError.InvalidArgument, client.ErrorOf(Write, 0, 4096));
        foreach (int command in (int[])[Read, Flush, Trim, Cache, WriteZeroes, BlockStatus, 77])
            Assert.Equal(NbdError.InvalidArgument, client.ErrorOf(command, 0, 100_000, PayloadFlag, new byte[100_000]));
        Assert.Equal(NbdError.InvalidArgument, client.ErrorOf(Write, 0, 0, PayloadFlag));
        Assert.Equal(NbdError.Overflow, client.ErrorOf(Read, 0, 33 << 20));
        Assert.Equal(NbdError.None, client.ErrorOf(Write, 0, 4096, PayloadFlag, new byte[4096]));
    }

    [Fact]
    public async Task A_payload_longer_than_the_maximum_closes_and_so_does_a_compact_request()
    {
        await using TestServer server = await TestServer.StartAsync(Memory());
        using (var client = new ExtendedClient(server))
        {
            client.Send(Write, 0, (32 << 20) + 1, PayloadFlag);
            client.Raw.IsClosed();
        }
        using (var client = new ExtendedClient(server))
        {
            client.Send(Read, 0, ulong.MaxValue, PayloadFlag);
            client.Raw.IsClosed();
        }
        using (var client = new ExtendedClient(server))
        {
            client.Raw.SendRequest(NbdCommand.Read, 1, 0, 512);
            client.Raw.Send(new byte[8]);
            client.Raw.IsClosed();
        }
        using RawClient compact = server.Go();
        compact.Send([0x21, 0xe4, 0x1c, 0x71, .. new byte[28]]);
        compact.IsClosed();
    }

    [Fact]
    public async Task Once_agreed_on_they_can_not_be_taken_back()
    {
        await using TestServer server = await TestServer.StartAsync(Memory());
        using (RawClient client = server.Connect())
        {
            client.Greet();
            client.Fails((NbdOption)11, [1], NbdOptionReply.ErrorInvalid);
            client.Acknowledged(NbdOption.StructuredReply, []);
            client.Acknowledged((NbdOption)11, []);
            client.Fails((NbdOption)11, [], NbdOptionReply.ErrorInvalid);
            client.Fails(NbdOption.StructuredReply, [], (NbdOptionReply)0x8000000a);
            client.Go("");
            Assert.Equal(0, client.TransmissionFlags & (1 << 12));
        }
        using RawClient old = server.Connect();
        old.Greet();
        old.Acknowledged((NbdOption)11, []);
        old.SendOption(NbdOption.ExportName, []);
        old.IsClosed();
    }

    [Fact]
    public async Task Requests_that_come_in_pieces_or_together_are_the_same()
    {
        await using TestServer server = await TestServer.StartAsync(Memory());
        using var client = new ExtendedClient(server, "base:allocation");
        byte[] payload = [.. Wire.U64(4096), .. Wire.U32(client.Contexts[0])];
        byte[] status = [0x21, 0xe4, 0x1c, 0x71, .. Wire.U16(PayloadFlag), .. Wire.U16(BlockStatus), .. Wire.U64(1), .. Wire.U64(0), .. Wire.U64(12), .. payload];
        byte[] write = [0x21, 0xe4, 0x1c, 0x71, .. Wire.U16(PayloadFlag), .. Wire.U16(Write), .. Wire.U64(2), .. Wire.U64(0), .. Wire.U64(5), 1, 2, 3, 4, 5];
        foreach (byte piece in (byte[])[.. status, .. write])
            client.Raw.Send([piece]);
        client.Raw.Send([.. write, .. status, .. status, .. write]);
        ulong[] cookies = [.. Enumerable.Range(0, 6).Select(_ => client.Receive().Cookie)];
        Assert.Equal([1, 1, 1, 2, 2, 2], [.. cookies.Order().Select(cookie => (int)cookie)]);
    }

    private static MemoryExport Memory() => new("", MemoryExport.FullInfo(DiskBytes));
}
