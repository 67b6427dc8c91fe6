namespace OrleansDisk.Nbd.Server;

/// <summary>
/// Sends the replies of one connection. Whoever completes a request sends its reply at once, together with all that
/// are waiting, if no one else is sending; else the one who is takes it along. A send never blocks the completing
/// thread: when the socket is full, the rest goes to a thread of this connection that waits for room, started
/// the first time this happens. Only the connection's own thread keeps what the socket did not take: it goes back to
/// receiving, and sends on whenever it waits and there is room (<see cref="IsHeld"/>), because a client may stop
/// reading until we read from it. What can wait here is bounded by the connection's budget of bytes in flight.
/// </summary>
internal sealed unsafe class ReplySender : IDisposable
{
    private const int MaxPieces = 256;

    // How many sends a thread of the engine does for others before it hands over.
    private const int MaxForeignSends = 16;

    private readonly StreamSocket _socket;
    private readonly ConnectionBudget _budget;
    private readonly RequestPool _requests;
    private readonly string _threadName;
    private readonly object _gate = new();
    private readonly IoVector[] _pieces = GC.AllocateArray<IoVector>(MaxPieces, pinned: true);

    // Under the gate.
    private List<PooledRequest> _waiting = [];
    private bool _isSending;
    private bool _isHandedOver;
    private bool _isDisposed;
    private Thread? _patientThread;

    // Of the one who is sending.
    private List<PooledRequest> _sending = [];
    private int _requestIndex;
    private int _pieceIndex;
    private nint _pieceOffset;
    private bool _isBroken;

    public ReplySender(StreamSocket socket, ConnectionBudget budget, RequestPool requests, string threadName)
    {
        _socket = socket;
        _budget = budget;
        _requests = requests;
        _threadName = threadName;
    }

    /// <summary>
    /// Whether the connection's thread holds replies that the socket did not take. No one else sends until it does, by
    /// <see cref="Resume"/>, or lets go of them, by <see cref="HandOverHeld"/>. For that thread alone.
    /// </summary>
    public bool IsHeld { get; private set; }

    /// <summary>Sends the replies that completed while a batch was submitted; on the connection's thread.</summary>
    public void SendBatch(List<PooledRequest> completed)
    {
        lock (_gate)
        {
            _waiting.AddRange(completed);
            if (_isSending && !IsHeld)
                return;
            _isSending = true;
        }
        Resume();
    }

    /// <summary>Sends what is held as far as the socket takes it; on the connection's thread.</summary>
    public void Resume() => IsHeld = !SendWaiting(int.MaxValue, waitsForRoom: false);

    /// <summary>Leaves what is held to the other thread, before the connection's thread waits for anything but the socket.</summary>
    public void HandOverHeld()
    {
        if (!IsHeld)
            return;
        IsHeld = false;
        HandOver();
    }

    /// <summary>Sends one reply, on any thread.</summary>
    public void Send(PooledRequest completed)
    {
        lock (_gate)
        {
            _waiting.Add(completed);
            if (_isSending)
                return;
            _isSending = true;
        }
        if (!SendWaiting(MaxForeignSends, waitsForRoom: false))
            HandOver();
    }

    /// <summary>
    /// Waits until no thread is in here any more. Every request must have completed, and the socket be shut down or
    /// its peer reading.
    /// </summary>
    public void Dispose()
    {
        lock (_gate)
        {
            _isDisposed = true;
            Monitor.PulseAll(_gate);
            while (_isSending)
                Monitor.Wait(_gate);
        }
        _patientThread?.Join();
    }

    /// <summary>Sends until nothing is left, which gives up the right to send; false when there is more.</summary>
    private bool SendWaiting(int maxSends, bool waitsForRoom)
    {
        while (TakeWaiting())
        {
            while (_requestIndex < _sending.Count)
            {
                if (maxSends-- == 0)
                    return false;
                nint sent = _isBroken ? -1 : _socket.TrySend(PiecesStart, GatherPieces());
                if (sent < 0)
                {
                    DropSending();
                }
                else if (sent > 0)
                {
                    Advance(sent);
                }
                else if (!waitsForRoom)
                {
                    return false;
                }
                else
                {
                    _socket.WaitWritable();
                }
            }
            _sending.Clear();
            _requestIndex = 0;
        }
        return true;
    }

    private IoVector* PiecesStart
    {
        get
        {
            fixed (IoVector* start = _pieces) // pinned for its whole life
                return start;
        }
    }

    /// <summary>The next replies to send; with none left, gives up the right to send.</summary>
    private bool TakeWaiting()
    {
        if (_requestIndex < _sending.Count)
            return true;
        lock (_gate)
        {
            if (_waiting.Count == 0)
            {
                _isSending = false;
                if (_isDisposed)
                    Monitor.PulseAll(_gate);
                return false;
            }
            (_waiting, _sending) = (_sending, _waiting);
            return true;
        }
    }

    private int GatherPieces()
    {
        int count = 0;
        int pieceIndex = _pieceIndex;
        nint skip = _pieceOffset;
        for (int i = _requestIndex; i < _sending.Count && count < MaxPieces; i++)
        {
            ReplyBuffer reply = _sending[i].Reply;
            for (; pieceIndex < reply.PieceCount && count < MaxPieces; pieceIndex++)
            {
                ref readonly IoVector piece = ref reply.Piece(pieceIndex);
                _pieces[count++] = new IoVector(piece.Start + skip, piece.Bytes - skip);
                skip = 0;
            }
            pieceIndex = 0;
        }
        return count;
    }

    private void Advance(nint sent)
    {
        int firstUnsent = _requestIndex;
        while (sent > 0)
        {
            ReplyBuffer reply = _sending[firstUnsent].Reply;
            nint left = reply.Piece(_pieceIndex).Bytes - _pieceOffset;
            if (sent < left)
            {
                _pieceOffset += sent;
                break;
            }
            sent -= left;
            _pieceOffset = 0;
            if (++_pieceIndex == reply.PieceCount)
            {
                _pieceIndex = 0;
                firstUnsent++;
            }
        }
        RecycleUntil(firstUnsent);
    }

    private void DropSending()
    {
        _isBroken = true;
        _pieceIndex = 0;
        _pieceOffset = 0;
        // The receiving side may be waiting for a client that is gone.
        _socket.ShutDownBoth();
        RecycleUntil(_sending.Count);
    }

    private void RecycleUntil(int end)
    {
        if (end == _requestIndex)
            return;
        long bytes = _requests.Recycle(_sending, _requestIndex, end);
        _requestIndex = end;
        _budget.Release(bytes);
    }

    private void HandOver()
    {
        lock (_gate)
        {
            _isHandedOver = true;
            if (_patientThread is null)
            {
                _patientThread = new Thread(SendPatiently) { IsBackground = true, Name = _threadName };
                _patientThread.Start();
            }
            Monitor.PulseAll(_gate);
        }
    }

    private void SendPatiently()
    {
        while (true)
        {
            lock (_gate)
            {
                while (!_isHandedOver && !_isDisposed)
                    Monitor.Wait(_gate);
                if (!_isHandedOver)
                    return;
                _isHandedOver = false;
            }
            SendWaiting(int.MaxValue, waitsForRoom: true);
        }
    }
}
