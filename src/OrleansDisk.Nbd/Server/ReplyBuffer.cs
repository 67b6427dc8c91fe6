using System.Buffers.Binary;
using System.Diagnostics;
using System.Text;
using OrleansDisk.Nbd.Protocol;

namespace OrleansDisk.Nbd.Server;

/// <summary>
/// The bytes of one reply as pieces in pinned memory: headers in a buffer of its own, data where the read put it.
/// Kept by its request from use to use, so that a reply costs no allocation.
/// </summary>
internal sealed unsafe class ReplyBuffer(BufferPool pool)
{
    public const int SimpleReplyBytes = 16;

    /// <summary>The most that the header of a chunk takes: that of an extended one.</summary>
    public const int MaxChunkHeaderBytes = 32;

    private const int ChunkHeaderBytes = 20;
    private const int SmallHeadBytes = 64;
    private const int MaxMessageBytes = 1024;
    private const ushort DoneFlag = 1;

    private readonly byte[] _smallHead = GC.AllocateArray<byte>(SmallHeadBytes, pinned: true);
    private byte[]? _rentedHead;
    private int _headBytes;
    private IoVector[] _pieces = new IoVector[2];

    public int PieceCount { get; private set; }

    /// <summary>The offset of the request where chunks have extended headers, or null: they have structured ones.</summary>
    public ulong? ExtendedOffset { get; set; }

    public ref readonly IoVector Piece(int index) => ref _pieces[index];

    /// <summary>Empties the reply, with room for <paramref name="headBytes"/> of headers: they do not move afterwards.</summary>
    public void Start(int headBytes)
    {
        Debug.Assert(_rentedHead is null);
        PieceCount = 0;
        _headBytes = 0;
        if (headBytes > SmallHeadBytes)
            _rentedHead = pool.Rent(headBytes);
    }

    /// <summary>Gives back what only this reply needed.</summary>
    public void End()
    {
        PieceCount = 0;
        if (_rentedHead is null)
            return;
        pool.Return(_rentedHead);
        _rentedHead = null;
    }

    /// <summary>"Simple reply message".</summary>
    public void AddSimple(ulong cookie, NbdError error)
    {
        Span<byte> header = TakeHead(SimpleReplyBytes);
        BinaryPrimitives.WriteUInt32BigEndian(header, NbdMagic.SimpleReply);
        BinaryPrimitives.WriteUInt32BigEndian(header[4..], (uint)error);
        BinaryPrimitives.WriteUInt64BigEndian(header[8..], cookie);
    }

    public void AddData(byte* start, int bytes) => AddPiece(new IoVector(start, bytes));

    /// <summary>NBD_REPLY_TYPE_OFFSET_DATA.</summary>
    public void AddDataChunk(ulong cookie, bool isLast, long offset, byte* start, int bytes)
    {
        Span<byte> body = AddChunk(NbdChunkType.OffsetData, cookie, isLast, 8, (uint)bytes);
        BinaryPrimitives.WriteInt64BigEndian(body, offset);
        AddData(start, bytes);
    }

    /// <summary>NBD_REPLY_TYPE_OFFSET_HOLE.</summary>
    public void AddHoleChunk(ulong cookie, bool isLast, long offset, uint bytes)
    {
        Span<byte> body = AddChunk(NbdChunkType.OffsetHole, cookie, isLast, 12, 0);
        BinaryPrimitives.WriteInt64BigEndian(body, offset);
        BinaryPrimitives.WriteUInt32BigEndian(body[8..], bytes);
    }

    /// <summary>Bytes of a chunk of block status.</summary>
    public int BlockStatusBytes(int extentCount) =>
        ExtendedOffset is null ? ChunkHeaderBytes + 4 + extentCount * 8 : MaxChunkHeaderBytes + 8 + extentCount * 16;

    /// <summary>NBD_REPLY_TYPE_BLOCK_STATUS or, with extended headers, NBD_REPLY_TYPE_BLOCK_STATUS_EXT: what one context says.</summary>
    public void AddBlockStatusChunk(ulong cookie, bool isLast, uint contextId, ReadOnlySpan<Extent> extents)
    {
        if (ExtendedOffset is not null)
        {
            AddExtendedStatusChunk(cookie, isLast, contextId, extents);
            return;
        }
        Span<byte> body = AddChunk(NbdChunkType.BlockStatus, cookie, isLast, 4 + extents.Length * 8, 0);
        BinaryPrimitives.WriteUInt32BigEndian(body, contextId);
        body = body[4..];
        foreach (Extent extent in extents)
        {
            BinaryPrimitives.WriteUInt32BigEndian(body, (uint)extent.Length);
            BinaryPrimitives.WriteUInt32BigEndian(body[4..], (uint)extent.State);
            body = body[8..];
        }
    }

    private void AddExtendedStatusChunk(ulong cookie, bool isLast, uint contextId, ReadOnlySpan<Extent> extents)
    {
        Span<byte> body = AddChunk(NbdChunkType.BlockStatusExtended, cookie, isLast, 8 + extents.Length * 16, 0);
        BinaryPrimitives.WriteUInt32BigEndian(body, contextId);
        BinaryPrimitives.WriteInt32BigEndian(body[4..], extents.Length);
        body = body[8..];
        foreach (Extent extent in extents)
        {
            BinaryPrimitives.WriteInt64BigEndian(body, extent.Length);
            BinaryPrimitives.WriteUInt64BigEndian(body[8..], (uint)extent.State);
            body = body[16..];
        }
    }

    /// <summary>A whole reply without content, which only extended headers need: NBD_REPLY_TYPE_NONE.</summary>
    public void StartNone(ulong cookie)
    {
        Start(MaxChunkHeaderBytes);
        AddChunk(NbdChunkType.None, cookie, isLast: true, 0, 0);
    }

    /// <summary>A whole reply that is NBD_REPLY_TYPE_ERROR with a message for people.</summary>
    public void StartError(ulong cookie, NbdError error, string? message)
    {
        int messageBytes = message is null ? 0 : Encoding.UTF8.GetByteCount(message);
        if (messageBytes > MaxMessageBytes)
        {
            message = null;
            messageBytes = 0;
        }
        Start(MaxChunkHeaderBytes + 6 + messageBytes);
        Span<byte> body = AddChunk(NbdChunkType.Error, cookie, isLast: true, 6 + messageBytes, 0);
        BinaryPrimitives.WriteUInt32BigEndian(body, (uint)error);
        BinaryPrimitives.WriteUInt16BigEndian(body[4..], (ushort)messageBytes);
        Encoding.UTF8.GetBytes(message, body[6..]);
    }

    private Span<byte> AddChunk(NbdChunkType type, ulong cookie, bool isLast, int bodyBytes, uint dataBytes)
    {
        int headerBytes = ExtendedOffset is null ? ChunkHeaderBytes : MaxChunkHeaderBytes;
        Span<byte> header = TakeHead(headerBytes + bodyBytes);
        BinaryPrimitives.WriteUInt32BigEndian(header, ExtendedOffset is null ? NbdMagic.StructuredReply : NbdMagic.ExtendedReply);
        BinaryPrimitives.WriteUInt16BigEndian(header[4..], isLast ? DoneFlag : (ushort)0);
        BinaryPrimitives.WriteUInt16BigEndian(header[6..], (ushort)type);
        BinaryPrimitives.WriteUInt64BigEndian(header[8..], cookie);
        if (ExtendedOffset is { } offset)
        {
            BinaryPrimitives.WriteUInt64BigEndian(header[16..], offset);
            BinaryPrimitives.WriteUInt64BigEndian(header[24..], (uint)bodyBytes + dataBytes);
        }
        else
        {
            BinaryPrimitives.WriteUInt32BigEndian(header[16..], (uint)bodyBytes + dataBytes);
        }
        return header[headerBytes..];
    }

    private Span<byte> TakeHead(int bytes)
    {
        byte[] head = _rentedHead ?? _smallHead;
        Span<byte> taken = head.AsSpan(_headBytes, bytes);
        // The array is pinned for its whole life.
        fixed (byte* start = taken)
            AddPiece(new IoVector(start, bytes));
        _headBytes += bytes;
        return taken;
    }

    private void AddPiece(IoVector piece)
    {
        if (PieceCount == _pieces.Length)
            Array.Resize(ref _pieces, _pieces.Length * 2);
        _pieces[PieceCount++] = piece;
    }
}
