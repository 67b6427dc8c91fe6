using System.Diagnostics;
using System.Runtime.InteropServices;
using OrleansDisk.Nbd.Protocol;

namespace OrleansDisk.Nbd.Server;

/// <summary>Where a completed request goes to have its reply sent.</summary>
internal interface IReplyTarget
{
    void Enqueue(PooledRequest request);
}

/// <summary>
/// A request of one connection with its payload buffer and its reply. Used again and again: rented and filled by the
/// connection's thread, completed anywhere, recycled by whoever sent its reply.
/// </summary>
internal sealed unsafe class PooledRequest(IReplyTarget target, BufferPool buffers) : NbdRequest
{
    /// <summary>Most chunks in the reply to a read; what has more holes is sent as data.</summary>
    public const int MaxReadExtents = 128;

    /// <summary>Most extents in the reply to a block-status request: the client asks again for the rest.</summary>
    public const int MaxStatusExtents = 8192;

    /// <summary>Memory a request holds beside its payload, as charged to the budget.</summary>
    public const int OverheadBytes = 1024;

    // A chunk of its own costs 32 bytes and a piece of the vectored send: not worth it for less than this.
    private const uint SmallestHoleBytes = 512;
    private const int KeptBufferBytes = 64 << 10;

    private const int Free = 0;
    private const int Open = 1;
    private const int Completed = 2;

    private readonly ExtentList _extents = new();

    /// <summary>Extents of the contexts beside base:allocation, in the order of <see cref="NbdRequest.WantedContexts"/>.</summary>
    private ExtentList[] _contextExtents = [];
    private byte[]? _buffer;
    private ulong _cookie;
    private bool _structured;
    private int _state;
    private bool _abandoned;

    public ReplyBuffer Reply { get; } = new(buffers);

    /// <summary>What the budget was charged.</summary>
    public long ChargedBytes { get; private set; }

    /// <summary>Memory that a request needs: its buffer and, for block status, its extents.</summary>
    public static long Charge(in RequestHeader header) => header.Command switch
    {
        NbdCommand.Read or NbdCommand.Write => OverheadBytes + (long)header.Length,
        NbdCommand.BlockStatus => OverheadBytes + MaxStatusExtents * 32,
        _ => OverheadBytes,
    };

    /// <summary>Fills a free request for a valid <paramref name="header"/>.</summary>
    public void Start(in RequestHeader header, in NegotiatedExport export, long chargedBytes)
    {
        Debug.Assert(_state == Free);
        Command = header.Command;
        Flags = header.Flags & ~NbdCommandFlags.PayloadLength;
        Offset = (long)header.Offset;
        Length = (long)header.Length;
        ChargedBytes = chargedBytes;
        _cookie = header.Cookie;
        _structured = export.StructuredReplies;
        Reply.ExtendedOffset = export.ExtendedHeaders ? header.Offset : null;
        bool isRead = Command == NbdCommand.Read;
        WantsHoles = isRead && _structured && (Flags & NbdCommandFlags.DontFragment) == 0;
        if (isRead || Command == NbdCommand.Write)
            Buffer = RentBuffer((int)Length);
        if (isRead)
            _extents.Start(Length, MaxReadExtents);
        else if (Command == NbdCommand.BlockStatus)
            StartStatus(export);
        Volatile.Write(ref _state, Open);
    }

    /// <summary>What a reply can hold is shared by the contexts.</summary>
    private void StartStatus(in NegotiatedExport export)
    {
        WantsAllocation = export.WantsAllocation;
        WantedContexts = export.Contexts;
        int count = WantedContexts.Count;
        int maxExtents = (Flags & NbdCommandFlags.RequestOne) != 0 ? 1 : Math.Max(1, MaxStatusExtents / (count + 1));
        long maxExtentBytes = export.ExtendedHeaders ? long.MaxValue : uint.MaxValue;
        _extents.Start(Length, maxExtents, maxExtentBytes);
        while (_contextExtents.Length < count)
            _contextExtents = [.. _contextExtents, new ExtentList()];
        for (int i = 0; i < count; i++)
            _contextExtents[i].Start(Length, maxExtents, maxExtentBytes);
    }

    /// <summary>Makes a free request the reply to one that was refused.</summary>
    public void Refuse(in RequestHeader header, in NegotiatedExport export, NbdError error, string message)
    {
        Debug.Assert(_state == Free);
        ChargedBytes = OverheadBytes;
        _cookie = header.Cookie;
        _structured = export.StructuredReplies;
        Reply.ExtendedOffset = export.ExtendedHeaders ? header.Offset : null;
        _state = Completed;
        EncodeError(error, message);
    }

    public override bool AddExtent(long length, NbdExtentState state) => Command switch
    {
        NbdCommand.BlockStatus => WantsAllocation && _extents.Add(length, state),
        NbdCommand.Read => AddReadExtent(length, state),
        _ => false,
    };

    public override bool AddExtent(int context, long length, uint flags)
    {
        for (int i = 0; i < WantedContexts.Count; i++)
        {
            if (WantedContexts[i] == context)
                return _contextExtents[i].Add(length, (NbdExtentState)flags);
        }
        return false;
    }

    public override void Complete(NbdError error, string? message = null)
    {
        if (Interlocked.CompareExchange(ref _state, Completed, Open) != Open)
            throw new InvalidOperationException($"an NBD request ({Command}) was completed twice");
        Encode(error, message);
        target.Enqueue(this);
    }

    /// <summary>
    /// Ends a request whose session failed, if it is still open. The session may go on using its buffer, so neither
    /// is used again.
    /// </summary>
    public void Abandon()
    {
        if (Interlocked.CompareExchange(ref _state, Completed, Open) != Open)
            return;
        _abandoned = true;
        EncodeError(NbdError.InputOutput, "the export failed");
        target.Enqueue(this);
    }

    /// <summary>Frees the request after its reply was sent or dropped; whether it can be used again.</summary>
    /// <param name="keepsBuffer">Whether it may keep a small buffer for its next use.</param>
    public bool Recycle(bool keepsBuffer)
    {
        Reply.End();
        if (_abandoned)
            return false;
        _extents.End();
        foreach (ExtentList extents in _contextExtents)
            extents.End();
        Buffer = default;
        if (_buffer is not null && (!keepsBuffer || _buffer.Length > KeptBufferBytes))
        {
            buffers.Return(_buffer);
            _buffer = null;
        }
        _state = Free;
        return true;
    }

    private Memory<byte> RentBuffer(int bytes)
    {
        if (_buffer is null || _buffer.Length < bytes)
        {
            if (_buffer is not null)
                buffers.Return(_buffer);
            _buffer = buffers.Rent(bytes);
        }
        return MemoryMarshal.CreateFromPinnedArray(_buffer, 0, bytes);
    }

    private bool AddReadExtent(long length, NbdExtentState state)
    {
        long left = Length - Math.Min(Length, _extents.CoveredBytes);
        length = Math.Min(length, left);
        bool isZero = (state & NbdExtentState.Zero) != 0;
        if (isZero && (!WantsHoles || length < SmallestHoleBytes))
        {
            _buffer.AsSpan((int)_extents.CoveredBytes, (int)length).Clear();
            isZero = false;
        }
        long before = _extents.CoveredBytes;
        bool wantsMore = _extents.Add(length, isZero ? NbdExtentState.Zero : NbdExtentState.Data);
        if (_extents.CoveredBytes == before && length > 0)
            SpillHoles(length, isZero);
        return WantsHoles ? wantsMore : _extents.CoveredBytes < Length;
    }

    /// <summary>Too many holes for a reply: fill them, and go on with the read as data.</summary>
    private void SpillHoles(long length, bool isZero)
    {
        long covered = _extents.CoveredBytes;
        ClearHoles();
        if (isZero)
            _buffer.AsSpan((int)covered, (int)length).Clear();
        WantsHoles = false;
        _extents.Start(Length, 1);
        _extents.Add(covered + length, NbdExtentState.Data);
    }

    private void ClearHoles()
    {
        int position = 0;
        foreach (Extent extent in _extents.Extents)
        {
            if (extent.State == NbdExtentState.Zero)
                _buffer.AsSpan(position, (int)extent.Length).Clear();
            position += (int)extent.Length;
        }
    }

    private void Encode(NbdError error, string? message)
    {
        if (error == NbdError.None && Command == NbdCommand.BlockStatus && LacksExtents())
        {
            error = NbdError.InputOutput;
            message = "the export reported no extent";
        }
        if (error != NbdError.None)
            EncodeError(error, message);
        else if (Command == NbdCommand.Read)
            EncodeRead();
        else if (Command == NbdCommand.BlockStatus)
            EncodeBlockStatus();
        else
            EncodeSuccess();
    }

    private void EncodeSuccess()
    {
        if (Reply.ExtendedOffset is not null)
        {
            Reply.StartNone(_cookie);
            return;
        }
        Reply.Start(ReplyBuffer.SimpleReplyBytes);
        Reply.AddSimple(_cookie, NbdError.None);
    }

    private void EncodeError(NbdError error, string? message)
    {
        if (_structured)
        {
            Reply.StartError(_cookie, error, message);
            return;
        }
        Reply.Start(ReplyBuffer.SimpleReplyBytes);
        Reply.AddSimple(_cookie, error);
    }

    private bool LacksExtents()
    {
        bool lacks = WantsAllocation && _extents.Extents.IsEmpty;
        for (int i = 0; i < WantedContexts.Count; i++)
            lacks |= _contextExtents[i].Extents.IsEmpty;
        return lacks;
    }

    private void EncodeBlockStatus()
    {
        int count = WantedContexts.Count;
        int bytes = WantsAllocation ? Reply.BlockStatusBytes(TrimmedExtents(_extents).Length) : 0;
        for (int i = 0; i < count; i++)
            bytes += Reply.BlockStatusBytes(TrimmedExtents(_contextExtents[i]).Length);
        Reply.Start(bytes);
        if (WantsAllocation)
            Reply.AddBlockStatusChunk(_cookie, isLast: count == 0, ContextSelection.AllocationId, _extents.Extents);
        for (int i = 0; i < count; i++)
            Reply.AddBlockStatusChunk(_cookie, isLast: i + 1 == count, ContextSelection.IdOf(WantedContexts[i]), _contextExtents[i].Extents);
    }

    private ReadOnlySpan<Extent> TrimmedExtents(ExtentList extents)
    {
        if ((Flags & NbdCommandFlags.RequestOne) != 0)
            extents.TrimToRange();
        return extents.Extents;
    }

    private void EncodeRead()
    {
        fixed (byte* data = _buffer) // pinned for its whole life
        {
            if (!_structured)
            {
                Reply.Start(ReplyBuffer.SimpleReplyBytes);
                Reply.AddSimple(_cookie, NbdError.None);
                Reply.AddData(data, (int)Length);
                return;
            }
            // What no extent covered is data.
            if (_extents.CoveredBytes < Length && !_extents.Extents.IsEmpty)
                AddReadExtent(Length - _extents.CoveredBytes, NbdExtentState.Data);
            ReadOnlySpan<Extent> extents = _extents.Extents;
            Reply.Start(Math.Max(1, extents.Length) * (ReplyBuffer.MaxChunkHeaderBytes + 12));
            if (extents.Length <= 1 && (extents.IsEmpty || extents[0].State == NbdExtentState.Data))
                Reply.AddDataChunk(_cookie, isLast: true, Offset, data, (int)Length);
            else
                AddChunks(extents, data);
        }
    }

    private void AddChunks(ReadOnlySpan<Extent> extents, byte* data)
    {
        long position = 0;
        foreach (Extent extent in extents)
        {
            bool isLast = position + extent.Length == Length;
            if (extent.State == NbdExtentState.Zero)
                Reply.AddHoleChunk(_cookie, isLast, Offset + position, (uint)extent.Length);
            else
                Reply.AddDataChunk(_cookie, isLast, Offset + position, data + position, (int)extent.Length);
            position += extent.Length;
        }
    }
}
