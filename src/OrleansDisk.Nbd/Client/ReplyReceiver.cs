using System.Buffers.Binary;
using System.Text;
using OrleansDisk.Nbd.Protocol;

namespace OrleansDisk.Nbd.Client;

/// <summary>Takes the replies of a server, simple and structured, to the requests that they belong to.</summary>
/// <param name="buffer">What the server has sent.</param>
/// <param name="pending">The requests that wait.</param>
/// <param name="export">What was agreed on.</param>
internal sealed class ReplyReceiver(ReceiveBuffer buffer, PendingRequests pending, NegotiatedExport export)
{
    private const int SimpleReplyBytes = 16;
    private const int ChunkHeaderBytes = 20;
    private const int ExtentBytes = 8;
    private const int MaxErrorBytes = 8 << 10;
    private const ushort LastChunk = 1;
    private const ushort ErrorBit = 0x8000;

    /// <summary>Takes one simple reply or one chunk.</summary>
    /// <exception cref="NbdConnectionException">The server broke the protocol.</exception>
    public async ValueTask TakeAsync()
    {
        ReadOnlyMemory<byte> start = await buffer.PeekAsync(SimpleReplyBytes);
        switch (BinaryPrimitives.ReadUInt32BigEndian(start.Span))
        {
            case NbdMagic.SimpleReply:
                await TakeSimpleAsync(start);
                break;
            case NbdMagic.StructuredReply when export.HasStructuredReplies:
                await TakeChunkAsync();
                break;
            default:
                throw Broken("no reply to a request");
        }
    }

    private async ValueTask TakeSimpleAsync(ReadOnlyMemory<byte> reply)
    {
        var error = (NbdError)BinaryPrimitives.ReadUInt32BigEndian(reply.Span[4..]);
        PendingRequest request = pending.Find(BinaryPrimitives.ReadUInt64BigEndian(reply.Span[8..]), isLast: false);
        buffer.Skip(SimpleReplyBytes);
        if (error != NbdError.None)
            request.Note(error, reason: null);
        else if (request.Command == NbdCommand.Read && export.HasStructuredReplies)
            throw Broken("a simple reply to a read");
        else if (request.Command == NbdCommand.Read)
            await buffer.TakeAsync(request.Fill((ulong)request.Offset, request.Length));
        Complete(request);
    }

    private async ValueTask TakeChunkAsync()
    {
        ReadOnlyMemory<byte> header = await buffer.PeekAsync(ChunkHeaderBytes);
        bool isLast = (BinaryPrimitives.ReadUInt16BigEndian(header.Span[4..]) & LastChunk) != 0;
        var type = (NbdChunkType)BinaryPrimitives.ReadUInt16BigEndian(header.Span[6..]);
        PendingRequest request = pending.Find(BinaryPrimitives.ReadUInt64BigEndian(header.Span[8..]), isLast: false);
        uint length = BinaryPrimitives.ReadUInt32BigEndian(header.Span[16..]);
        buffer.Skip(ChunkHeaderBytes);
        switch (type)
        {
            case NbdChunkType.None when length == 0 && isLast:
                break;
            case NbdChunkType.OffsetData when length > sizeof(ulong):
                await TakeDataAsync(request, length - sizeof(ulong));
                break;
            case NbdChunkType.OffsetHole when length == sizeof(ulong) + sizeof(uint):
                await TakeHoleAsync(request);
                break;
            case NbdChunkType.BlockStatus when length % ExtentBytes == sizeof(uint):
                await TakeExtentsAsync(request, (length - sizeof(uint)) / ExtentBytes);
                break;
            default:
                await TakeErrorAsync(request, type, length);
                break;
        }
        if (isLast)
            Complete(request);
    }

    private async ValueTask TakeDataAsync(PendingRequest request, uint bytes)
    {
        ReadOnlyMemory<byte> offset = await buffer.PeekAsync(sizeof(ulong));
        Memory<byte> target = request.Fill(BinaryPrimitives.ReadUInt64BigEndian(offset.Span), bytes);
        buffer.Skip(sizeof(ulong));
        await buffer.TakeAsync(target);
    }

    private async ValueTask TakeHoleAsync(PendingRequest request)
    {
        ReadOnlyMemory<byte> hole = await buffer.PeekAsync(sizeof(ulong) + sizeof(uint));
        uint bytes = BinaryPrimitives.ReadUInt32BigEndian(hole.Span[sizeof(ulong)..]);
        request.Fill(BinaryPrimitives.ReadUInt64BigEndian(hole.Span), bytes).Span.Clear();
        buffer.Skip(sizeof(ulong) + sizeof(uint));
    }

    private async ValueTask TakeExtentsAsync(PendingRequest request, uint count)
    {
        ReadOnlyMemory<byte> context = await buffer.PeekAsync(sizeof(uint));
        if (request.Command != NbdCommand.BlockStatus || BinaryPrimitives.ReadUInt32BigEndian(context.Span) != export.ContextId)
            throw Broken("a block status that was not asked for");
        buffer.Skip(sizeof(uint));
        for (; count > 0; count--)
        {
            ReadOnlyMemory<byte> extent = await buffer.PeekAsync(ExtentBytes);
            uint bytes = BinaryPrimitives.ReadUInt32BigEndian(extent.Span);
            if (bytes == 0)
                throw Broken("an extent of no bytes");
            request.Describe(new NbdExtent(bytes, BinaryPrimitives.ReadUInt32BigEndian(extent.Span[4..])));
            buffer.Skip(ExtentBytes);
        }
    }

    private async ValueTask TakeErrorAsync(PendingRequest request, NbdChunkType type, uint length)
    {
        const int fixedBytes = sizeof(uint) + sizeof(ushort);
        if (((ushort)type & ErrorBit) == 0 || length is < fixedBytes or > MaxErrorBytes)
            throw Broken($"a chunk of type {(ushort)type} with {length} bytes");
        ReadOnlyMemory<byte> data = await buffer.PeekAsync((int)length);
        int textBytes = BinaryPrimitives.ReadUInt16BigEndian(data.Span[sizeof(uint)..]);
        if (textBytes > length - fixedBytes)
            throw Broken("an error longer than its chunk");
        request.Note((NbdError)BinaryPrimitives.ReadUInt32BigEndian(data.Span), Encoding.UTF8.GetString(data.Span.Slice(fixedBytes, textBytes)));
        buffer.Skip((int)length);
    }

    private void Complete(PendingRequest request)
    {
        request.Complete();
        pending.Find(request.Cookie, isLast: true);
    }

    private static NbdConnectionException Broken(string what) => new($"the server broke the protocol: {what}");
}
