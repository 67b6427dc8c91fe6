using System.Collections.Concurrent;
using OrleansDisk.Nbd.Protocol;
using OrleansDisk.Nbd.Server;
using OrleansDisk.Nbd.Tests.Fixtures;

namespace OrleansDisk.Nbd.Tests;

/// <summary>Each command and flag of the transmission phase, byte by byte.</summary>
public sealed class TransmissionTests
{
    private const uint ExportBytes = 1 << 20;

    private static MemoryExport Export(NbdExportInfo? info = null, bool isAsynchronous = false) =>
        new("", info ?? MemoryExport.FullInfo(ExportBytes))
        {
            Seen = new ConcurrentQueue<SeenRequest>(),
            IsAsynchronous = isAsynchronous,
        };

    private static byte[] Pattern(int bytes, int seed)
    {
        byte[] pattern = new byte[bytes];
        new Random(seed).NextBytes(pattern);
        return pattern;
    }

    [Theory]
    [InlineData(false, 1)]
    [InlineData(true, 511)]
    [InlineData(false, 65536)]
    [InlineData(true, 65537)]
    [InlineData(false, 300_000)]
    [InlineData(true, 700_001)]
    public async Task What_was_written_is_read_back(bool isAsynchronous, int bytes)
    {
        await using TestServer server = await TestServer.StartAsync(Export(isAsynchronous: isAsynchronous));
        using RawClient client = server.Go();
        byte[] pattern = Pattern(bytes, bytes);
        for (uint offset = 0; offset < 3; offset++)
        {
            Assert.Equal(NbdError.None, client.Write(offset, pattern).Error);
            Assert.Equal(pattern, client.Read(offset, (uint)bytes));
        }
    }

    [Fact]
    public async Task A_read_has_a_simple_reply_without_structured_replies()
    {
        await using TestServer server = await TestServer.StartAsync(Export());
        using RawClient client = server.Go(structured: false);
        byte[] pattern = Pattern(4096, 1);
        client.Write(8192, pattern);
        client.SendRequest(NbdCommand.Read, 42, 4096, 8192);
        ReplyChunk reply = client.ReceiveReply(8192);
        Assert.Equal(42u, reply.Cookie);
        Assert.All(reply.Data[..4096], b => Assert.Equal(0, b));
        Assert.Equal(pattern, reply.Data[4096..]);
    }

    [Fact]
    public async Task Holes_of_a_read_are_hole_chunks()
    {
        await using TestServer server = await TestServer.StartAsync(Export());
        using RawClient client = server.Go();
        client.Write(8192, Pattern(4096, 2));
        client.SendRequest(NbdCommand.Read, 1, 4096, 12288);
        ReplyChunk first = client.ReceiveReply(), second = client.ReceiveReply(), third = client.ReceiveReply();
        Assert.Equal(NbdChunkType.OffsetHole, first.Type);
        Assert.Equal([.. Wire.U64(4096), .. Wire.U32(4096)], first.Data);
        Assert.Equal(NbdChunkType.OffsetData, second.Type);
        Assert.Equal([.. Wire.U64(8192), .. Pattern(4096, 2)], second.Data);
        Assert.Equal([.. Wire.U64(12288), .. Wire.U32(4096)], third.Data);
        Assert.Equal([false, false, true], new[] { first.IsLast, second.IsLast, third.IsLast });
    }

    [Fact]
    public async Task A_read_with_more_holes_than_chunks_is_data()
    {
        await using TestServer server = await TestServer.StartAsync(Export());
        using RawClient client = server.Go();
        byte[] expected = new byte[ExportBytes];
        for (uint i = 0; i < ExportBytes; i += 8192)
        {
            Pattern(4096, (int)i).CopyTo(expected, i);
            client.Write(i, expected[(int)i..(int)(i + 4096)]);
        }
        Assert.Equal(expected, client.Read(0, ExportBytes));
        Assert.Equal(expected[5000..900_000], client.Read(5000, 895_000));
    }

    [Fact]
    public async Task Do_not_fragment_makes_one_chunk_with_the_zeroes_in_it()
    {
        await using TestServer server = await TestServer.StartAsync(Export());
        using RawClient client = server.Go();
        client.Write(4096, Pattern(4096, 3));
        ReplyChunk reply = client.Request(NbdCommand.Read, 0, 12288, NbdCommandFlags.DontFragment);
        Assert.Equal(NbdChunkType.OffsetData, reply.Type);
        Assert.Equal([.. Wire.U64(0), .. new byte[4096], .. Pattern(4096, 3), .. new byte[4096]], reply.Data);
    }

    [Theory]
    [InlineData(NbdCommand.Flush, NbdCommandFlags.None)]
    [InlineData(NbdCommand.Flush, NbdCommandFlags.Fua)]
    [InlineData(NbdCommand.Trim, NbdCommandFlags.None)]
    [InlineData(NbdCommand.Trim, NbdCommandFlags.Fua)]
    [InlineData(NbdCommand.Cache, NbdCommandFlags.None)]
    [InlineData(NbdCommand.Cache, NbdCommandFlags.Fua)]
    [InlineData(NbdCommand.WriteZeroes, NbdCommandFlags.None)]
    [InlineData(NbdCommand.WriteZeroes, NbdCommandFlags.Fua | NbdCommandFlags.NoHole)]
    [InlineData(NbdCommand.WriteZeroes, NbdCommandFlags.FastZero)]
    public async Task Commands_without_payload_reach_the_export_with_their_flags(NbdCommand command, NbdCommandFlags flags)
    {
        MemoryExport export = Export();
        await using TestServer server = await TestServer.StartAsync(export);
        using RawClient client = server.Go();
        uint range = command == NbdCommand.Flush ? 0u : 4096;
        Assert.Equal(NbdError.None, client.Request(command, range, range, flags).Error);
        Assert.Equal(new SeenRequest(command, flags, range, range), Assert.Single(export.Seen!));
        Assert.Empty(server.Lines);
    }

    [Theory]
    [InlineData(NbdCommand.Read)]
    [InlineData(NbdCommand.Write)]
    public async Task Force_unit_access_goes_with_commands_that_have_a_payload(NbdCommand command)
    {
        MemoryExport export = Export();
        await using TestServer server = await TestServer.StartAsync(export);
        using RawClient client = server.Go();
        byte[]? payload = command == NbdCommand.Write ? Pattern(512, 4) : null;
        Assert.Equal(NbdError.None, client.Request(command, 0, 512, NbdCommandFlags.Fua, payload).Error);
        Assert.Equal(NbdCommandFlags.Fua, Assert.Single(export.Seen!).Flags);
    }

    [Fact]
    public async Task Write_zeroes_and_trim_take_more_than_the_maximum_payload()
    {
        MemoryExport export = Export(MemoryExport.FullInfo(40 << 20));
        await using TestServer server = await TestServer.StartAsync(export);
        using RawClient client = server.Go();
        Assert.Equal(NbdError.None, client.Request(NbdCommand.WriteZeroes, 0, 40 << 20).Error);
        Assert.Equal(NbdError.None, client.Request(NbdCommand.Trim, 0, 40 << 20).Error);
        Assert.Equal(NbdError.None, client.Request(NbdCommand.Cache, 0, 40 << 20).Error);
    }

    [Fact]
    public async Task The_longest_request_is_32_MiB()
    {
        await using TestServer server = await TestServer.StartAsync(Export(MemoryExport.FullInfo(40 << 20)));
        using RawClient client = server.Go();
        byte[] longest = Pattern(32 << 20, 5);
        Assert.Equal(NbdError.None, client.Write(1, longest).Error);
        Assert.Equal(longest, client.Read(1, 32 << 20));
        Assert.Equal(NbdError.InvalidArgument, client.Write(1, new byte[(32 << 20) + 1]).Error);
        Assert.Equal(NbdError.Overflow, client.Request(NbdCommand.Read, 0, (32 << 20) + 1).Error);
        Assert.Equal(longest[..99], client.Read(1, 99));
    }

    [Fact]
    public async Task Block_status_lists_merged_extents()
    {
        await using TestServer server = await TestServer.StartAsync(Export());
        using RawClient client = server.Go(blockStatus: true);
        client.Write(8192, Pattern(8192, 6));
        ReplyChunk reply = client.Request(NbdCommand.BlockStatus, 4096, 65536);
        Assert.Equal(NbdChunkType.BlockStatus, reply.Type);
        Assert.Equal(
            [.. Wire.U32(1), .. Wire.U32(4096), .. Wire.U32(3), .. Wire.U32(8192), .. Wire.U32(0), .. Wire.U32(53248),
            .. Wire.U32(3)],
            reply.Data);
    }

    [Fact]
    public async Task Block_status_with_request_one_is_one_extent_within_the_range()
    {
        MemoryExport export = Export();
        await using TestServer server = await TestServer.StartAsync(export);
        using RawClient client = server.Go(blockStatus: true);
        client.Write(8192, Pattern(8192, 6));
        byte[] data = client.Request(NbdCommand.BlockStatus, 0, 65536, NbdCommandFlags.RequestOne).Data;
        Assert.Equal([.. Wire.U32(1), .. Wire.U32(8192), .. Wire.U32(3)], data);
        // Even if the export says more than it was asked for.
        export.Intercept = request =>
        {
            Assert.False(request.AddExtent(1 << 20, NbdExtentState.Data));
            request.Complete(NbdError.None);
            return true;
        };
        data = client.Request(NbdCommand.BlockStatus, 4096, 512, NbdCommandFlags.RequestOne).Data;
        Assert.Equal([.. Wire.U32(1), .. Wire.U32(512), .. Wire.U32(0)], data);
    }

    [Fact]
    public async Task Block_status_is_bounded_in_extents()
    {
        MemoryExport export = Export();
        await using TestServer server = await TestServer.StartAsync(export);
        using RawClient client = server.Go(blockStatus: true);
        export.Intercept = request =>
        {
            int count = 1;
            while (request.AddExtent(16, (count & 1) == 0 ? NbdExtentState.Data : NbdExtentState.Zero))
                count++;
            request.Complete(NbdError.None);
            return true;
        };
        byte[] data = client.Request(NbdCommand.BlockStatus, 0, ExportBytes).Data;
        Assert.Equal(4 + 8192 * 8, data.Length);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task An_error_of_the_export_reaches_the_client(bool structured)
    {
        MemoryExport export = Export();
        export.Intercept = request =>
        {
            request.Complete(NbdError.NoSpace, "the pool is full");
            return true;
        };
        await using TestServer server = await TestServer.StartAsync(export);
        using RawClient client = server.Go(structured);
        foreach (NbdCommand command in new[] { NbdCommand.Read, NbdCommand.Trim })
        {
            ReplyChunk reply = client.Request(command, 0, 4096);
            Assert.Equal(NbdError.NoSpace, reply.Error);
            if (structured)
                Assert.Equal("the pool is full", reply.Message);
        }
    }

    [Fact]
    public async Task Replies_go_out_of_order_when_requests_complete_out_of_order()
    {
        MemoryExport export = Export();
        var held = new ConcurrentQueue<NbdRequest>();
        export.Intercept = request =>
        {
            if (request.Offset != 0)
                return false;
            held.Enqueue(request);
            return true;
        };
        await using TestServer server = await TestServer.StartAsync(export);
        using RawClient client = server.Go();
        client.SendRequest(NbdCommand.Read, 1, 0, 4096);
        client.SendRequest(NbdCommand.Read, 2, 4096, 4096);
        Assert.Equal(2u, client.ReceiveReply().Cookie);
        Assert.True(held.TryDequeue(out NbdRequest? first));
        first.Complete(NbdError.None);
        Assert.Equal(1u, client.ReceiveReply().Cookie);
        Assert.Throws<InvalidOperationException>(() => first.Complete(NbdError.None));
    }

    [Fact]
    public async Task Disconnect_closes_after_the_requests_before_it_are_answered()
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
        client.SendRequest(NbdCommand.Disconnect, 2, 0, 0);
        await Eventually.IsTrueAsync(() => !held.IsEmpty);
        held.Single().Complete(NbdError.None);
        Assert.Equal(1u, client.ReceiveReply().Cookie);
        client.IsClosed();
        await Eventually.IsTrueAsync(() => server.Server.ConnectionCount == 0);
        Assert.Equal(0, export.SessionCount);
        Assert.Empty(server.Lines);
    }

    [Fact]
    public async Task Many_requests_in_one_packet_are_all_answered()
    {
        await using TestServer server = await TestServer.StartAsync(Export());
        using RawClient client = server.Go();
        var packet = new List<byte>();
        for (uint i = 0; i < 500; i++)
        {
            byte[] message = new byte[RequestHeader.HeaderBytes + 1000];
            new RequestHeader(NbdMagic.Request, 0, NbdCommand.Write, i, i * 1000, 1000).WriteTo(message);
            Array.Fill(message, (byte)i, RequestHeader.HeaderBytes, 1000);
            packet.AddRange(message);
        }
        client.Send(packet.ToArray());
        for (uint i = 0; i < 500; i++)
        {
            ReplyChunk reply = client.ReceiveReply();
            Assert.Equal((i, NbdError.None), (reply.Cookie, reply.Error));
        }
        byte[] all = client.Read(0, 500_000);
        Assert.All(Enumerable.Range(0, 500), i => Assert.Equal((byte)i, all[i * 1000 + 999]));
    }

    [Fact]
    public async Task A_request_costs_no_allocation_on_the_connections_thread()
    {
        var export = new MemoryExport("", MemoryExport.FullInfo(ExportBytes));
        export.Allocate();
        var allocated = new ConcurrentQueue<long>();
        export.Intercept = request =>
        {
            if (request.Command == NbdCommand.Flush)
                allocated.Enqueue(GC.GetAllocatedBytesForCurrentThread());
            else if (request.Command == NbdCommand.Read)
                request.AddExtent(request.Length, NbdExtentState.Data);
            else if (request.Command == NbdCommand.BlockStatus)
                AddManyExtents(request);
            request.Complete(NbdError.None);
            return true;
        };
        await using TestServer server = await TestServer.StartAsync(export);
        using RawClient client = server.Go(blockStatus: true);
        byte[] large = new byte[100_000];
        for (int round = 0; round < 6; round++)
        {
            client.Request(NbdCommand.Flush, 0, 0);
            for (int i = 0; i < 500; i++)
            {
                client.Write(0, large);
                client.Write(0, large[..4096]);
                client.Read(0, 4096);
                client.Read(0, 100_000);
                client.Request(NbdCommand.Trim, 0, 4096);
                client.Request(NbdCommand.WriteZeroes, 0, 4096);
                client.Request(NbdCommand.Cache, 0, 4096);
                client.Request(NbdCommand.BlockStatus, 0, ExportBytes);
            }
        }
        long[] totals = [.. allocated];
        // The pools may still grow in some rounds, by how the threads meet; a cost per request would show in all.
        Assert.Contains(totals.Zip(totals.Skip(1)), round => round.First == round.Second);
    }

    /// <summary>More than a request keeps room for.</summary>
    private static void AddManyExtents(NbdRequest request)
    {
        for (int i = 0; i < 1_000; i++)
            request.AddExtent(512, (i & 1) == 0 ? NbdExtentState.Data : NbdExtentState.Hole);
    }
}
