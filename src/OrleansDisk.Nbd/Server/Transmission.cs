using OrleansDisk.Nbd.Protocol;

namespace OrleansDisk.Nbd.Server;

/// <summary>
/// The transmission phase of one connection, on the connection's thread: receive as much as there is, parse every
/// complete request, hand them to the export in one batch, send the replies that are ready in one call, receive again.
/// </summary>
internal sealed unsafe class Transmission : IReplyTarget, IDisposable
{
    private const int ReceiveBufferBytes = 256 << 10;

    // Payloads up to this are copied out of the receive buffer; longer ones are received where they belong.
    private const int BufferedPayloadBytes = 64 << 10;

    // After a long payload, the next one is likely long too: receive little more than its header with it.
    private const int ReceiveBeforePayloadBytes = 4 << 10;
    private const int BatchLimit = 64;

    private readonly Connection _connection;
    private readonly NegotiatedExport _export;
    private readonly RequestRules _rules;
    private readonly uint _maxRequestBytes;
    private readonly int _headerBytes;
    private readonly uint _magic;
    private readonly StreamSocket _socket;
    private readonly ConnectionBudget _budget;
    private readonly RequestPool _requests;
    private readonly ReplySender _sender;
    private readonly ReceiveSpin _spin = new(SpinPlaces.OfProcess);
    private readonly int _threadId = Environment.CurrentManagedThreadId;
    private readonly byte[] _received = GC.AllocateUninitializedArray<byte>(ReceiveBufferBytes, pinned: true);
    private readonly NbdRequest[] _batch = new NbdRequest[BatchLimit];
    private readonly List<PooledRequest> _completed = [];
    private int _batchCount;
    private int _start;
    private int _end;
    private bool _expectsPayload;
    private bool _exportFailed;

    public Transmission(
        Connection connection, StreamSocket socket, NegotiatedExport export, ConnectionBudget budget, BufferPool buffers)
    {
        _connection = connection;
        _export = export;
        _maxRequestBytes = connection.Options.MaxRequestBytes;
        _rules = new RequestRules(export, _maxRequestBytes);
        (_headerBytes, _magic) = export.ExtendedHeaders ? (RequestHeader.ExtendedHeaderBytes, NbdMagic.ExtendedRequest)
            : (RequestHeader.HeaderBytes, NbdMagic.Request);
        _socket = socket;
        _budget = budget;
        _requests = new RequestPool(buffers);
        _sender = new ReplySender(socket, budget, _requests, connection.Name + " replies");
    }

    /// <summary>Serves requests until the client leaves, breaks the protocol beyond repair, or is shut down.</summary>
    public void Run()
    {
        try
        {
            while (!_exportFailed && Receive() && ParseReceived())
                SubmitBatch();
        }
        finally
        {
            SubmitBatch();
        }
    }

    /// <summary>Waits until every request has completed and its reply was sent, or dropped with the connection.</summary>
    public void Dispose()
    {
        _sender.HandOverHeld();
        _budget.WaitUntilIdle();
        _sender.Dispose();
    }

    void IReplyTarget.Enqueue(PooledRequest request)
    {
        // On the connection's thread this is inside Submit or while parsing: the batch is sent right after.
        if (Environment.CurrentManagedThreadId == _threadId)
            _completed.Add(request);
        else
            _sender.Send(request);
    }

    private bool Receive()
    {
        if (_start == _end)
            _start = _end = 0;
        if (ReceiveBufferBytes - _start < BufferedPayloadBytes + RequestHeader.ExtendedHeaderBytes)
        {
            Unparsed.CopyTo(_received);
            (_start, _end) = (0, _end - _start);
        }
        int room = _expectsPayload && _start == _end ? ReceiveBeforePayloadBytes : ReceiveBufferBytes;
        int received = Receive(_received.AsSpan(_end, Math.Min(room, ReceiveBufferBytes - _end)));
        if (received == 0 && _start != _end && !_connection.IsStopping)
            _connection.LogViolation("it ended inside a request");
        _end += received;
        return received > 0;
    }

    private int Receive(Span<byte> target)
    {
        WaitForInput();
        int received = _spin.TryReceive(_socket, target);
        return received < 0 ? _socket.Receive(target) : received;
    }

    /// <summary>While replies are held, sends them as there is room, until there is something to receive.</summary>
    private void WaitForInput()
    {
        bool isReadable = false;
        while (_sender.IsHeld && !isReadable)
        {
            (isReadable, bool isWritable) = _socket.WaitEitherWay();
            if (isWritable)
                _sender.Resume();
        }
    }

    private Span<byte> Unparsed => _received.AsSpan(_start, _end - _start);

    /// <summary>Takes every complete request out of the receive buffer; false when the connection must end.</summary>
    private bool ParseReceived()
    {
        while (_end - _start >= _headerBytes && !_exportFailed)
        {
            RequestHeader header = _export.ExtendedHeaders ? RequestHeader.ParseExtended(Unparsed) : RequestHeader.Parse(Unparsed);
            if (header.Magic != _magic)
            {
                _connection.LogViolation($"a request with magic 0x{header.Magic:x8}");
                return false;
            }
            if (header.Command == NbdCommand.Disconnect)
                return false;
            if (IsStatusWithPayload(header))
            {
                if (_end - _start < _headerBytes + (int)header.PayloadBytes)
                    return true;
                if (!AdmitStatusWithPayload(header))
                    return false;
                continue;
            }
            if (WhyNot(header) is { } refusal)
            {
                if (!Refuse(header, refusal))
                    return false;
                continue;
            }
            int buffered = _end - _start - _headerBytes;
            if ((ulong)buffered < header.PayloadBytes && header.PayloadBytes <= BufferedPayloadBytes)
                return true;
            if (!Admit(header, _export, buffered))
                return false;
        }
        return true;
    }

    private Refusal? WhyNot(in RequestHeader header) =>
        _connection.IsStopping ? new Refusal(NbdError.ShuttingDown, "the server is shutting down") : _rules.Check(header);

    /// <summary>Whether a request has a payload to look into; one of a wrong length is refused like any other.</summary>
    private bool IsStatusWithPayload(in RequestHeader header) => header is { Command: NbdCommand.BlockStatus, PayloadBytes: > 0 }
        && header.PayloadBytes <= _rules.MaxStatusPayloadBytes && _export.HasContexts && !_connection.IsStopping;

    /// <summary>Starts, or refuses, a block status that is all in the buffer with its payload.</summary>
    private bool AdmitStatusWithPayload(in RequestHeader header)
    {
        int payloadBytes = (int)header.PayloadBytes;
        RequestHeader meant = header;
        if (_rules.ReadStatusPayload(ref meant, Unparsed.Slice(_headerBytes, payloadBytes), out NegotiatedExport wanted) is { } refusal)
            return Refuse(header, refusal);
        if (!Admit(meant, wanted, buffered: 0))
            return false;
        _start += payloadBytes;
        return true;
    }

    /// <summary>Starts a valid request whose payload is in the buffer or long.</summary>
    private bool Admit(in RequestHeader header, in NegotiatedExport export, int buffered)
    {
        long charge = PooledRequest.Charge(header);
        if (!Charge(charge))
            return false;
        PooledRequest request = _requests.Rent(this);
        request.Start(header, export, charge);
        _start += _headerBytes;
        int payloadBytes = (int)header.PayloadBytes;
        if (payloadBytes > 0)
        {
            int copied = Math.Min(payloadBytes, buffered);
            _received.AsSpan(_start, copied).CopyTo(request.Buffer.Span);
            _start += copied;
            _expectsPayload = payloadBytes > BufferedPayloadBytes;
            if (copied < payloadBytes && !ReceivePayload(request, copied))
                return false;
        }
        _batch[_batchCount++] = request;
        if (_batchCount == BatchLimit)
            SubmitBatch();
        return true;
    }

    /// <summary>Receives the rest of a payload into its request, and with the last of it the start of what follows.</summary>
    private bool ReceivePayload(PooledRequest request, int done)
    {
        // The requests before it need not wait for it.
        SubmitBatch();
        _start = _end = 0;
        Span<byte> payload = request.Buffer.Span;
        fixed (byte* target = payload, next = _received)
        {
            while (done < payload.Length)
            {
                WaitForInput();
                int left = payload.Length - done;
                int received = _socket.Receive(
                    new IoVector(target + done, left), new IoVector(next, ReceiveBeforePayloadBytes));
                if (received == 0)
                {
                    if (!_connection.IsStopping)
                        _connection.LogViolation("it ended inside the payload of a write");
                    request.Complete(NbdError.ShuttingDown, "the payload did not come");
                    return false;
                }
                done += Math.Min(received, left);
                _end = Math.Max(0, received - left);
            }
        }
        return true;
    }

    /// <summary>Answers a request with an error and skips its payload; false when the connection must end.</summary>
    private bool Refuse(in RequestHeader header, in Refusal refusal)
    {
        if (refusal.Error != NbdError.ShuttingDown)
            _connection.LogViolation(refusal.Reason);
        if (header.PayloadBytes > (_export.ExtendedHeaders ? 1ul : 2ul) * _maxRequestBytes)
        {
            _connection.LogViolation($"a write of {header.PayloadBytes} bytes, too long to skip");
            return false;
        }
        if (!Charge(PooledRequest.OverheadBytes))
            return false;
        _start += _headerBytes;
        if (!SkipPayload((uint)header.PayloadBytes))
        {
            _budget.Release(PooledRequest.OverheadBytes);
            return false;
        }
        PooledRequest request = _requests.Rent(this);
        request.Refuse(header, _export, refusal.Error, refusal.Reason);
        _completed.Add(request);
        return true;
    }

    private bool SkipPayload(uint bytes)
    {
        while (true)
        {
            uint skipped = Math.Min(bytes, (uint)(_end - _start));
            _start += (int)skipped;
            bytes -= skipped;
            if (bytes == 0)
                return true;
            SubmitBatch();
            _start = 0;
            WaitForInput();
            _end = _socket.Receive(_received);
            if (_end == 0)
                return false;
        }
    }

    /// <summary>
    /// Waits until the budget takes a request. What was parsed goes to the export first, because its replies are what
    /// makes room; while this waits, the socket is not read.
    /// </summary>
    private bool Charge(long bytes)
    {
        if (_budget.TryCharge(bytes))
            return true;
        SubmitBatch();
        if (_budget.TryCharge(bytes))
            return true;
        _sender.HandOverHeld();
        return _budget.Charge(bytes);
    }

    private void SubmitBatch()
    {
        if (_batchCount > 1)
            _spin.NotePipelining();
        if (_batchCount > 0)
        {
            ReadOnlySpan<NbdRequest> batch = _batch.AsSpan(0, _batchCount);
            try
            {
                _export.Session.Submit(batch);
            }
            catch (Exception e)
            {
                // A fault of the export. It must not take the process, nor leave the client waiting.
                _connection.LogFault("the export failed", e);
                _exportFailed = true;
                foreach (NbdRequest request in batch)
                    ((PooledRequest)request).Abandon();
            }
            _batchCount = 0;
        }
        if (_completed.Count == 0)
            return;
        _sender.SendBatch(_completed);
        _completed.Clear();
    }
}
