namespace OrleansDisk.Qcow2.Concurrency;

/// <summary>
/// Lets requests in: guest I/O shares the gate, an operation on the whole image has it alone, and both come in the
/// order in which they asked. It also knows which requests were inside at a given moment, so that a host cluster is
/// reused only after everyone who saw the old mapping has left, sessions with leases among them (docs/consistency.md, W5).
/// No locks: everything runs on the image's exclusive scheduler.
/// </summary>
internal sealed class RequestGate
{
    private readonly Queue<Waiter> _waiters = new();

    /// <summary>Requests inside, by the epoch in which they entered; the last one is the current epoch.</summary>
    private readonly List<int> _insideByEpoch = [0];
    private long _firstEpoch = 1;
    private int _inside;
    private bool _isExclusive;
    private bool _awaitsLeases;

    /// <summary>Called when requests of an ended epoch are all out.</summary>
    public Action? EpochDrained { get; set; }

    /// <summary>Sessions that look mappings up by themselves.</summary>
    public LeaseEpochs Leases { get; } = new();

    private long CurrentEpoch => _firstEpoch + _insideByEpoch.Count - 1;

    /// <summary>Enters at once if nobody has, or waits for, the gate alone.</summary>
    public bool TryEnterShared(out Ticket ticket)
    {
        if (_isExclusive || _waiters.Count > 0)
        {
            ticket = default;
            return false;
        }
        ticket = Admit();
        return true;
    }

    public ValueTask<Ticket> EnterSharedAsync() =>
        TryEnterShared(out Ticket ticket) ? new ValueTask<Ticket>(ticket) : Wait(isExclusive: false);

    /// <summary>
    /// Enters when every request before it, and every session with a lease, is out; the ticket's disposal lets the next
    /// ones in.
    /// </summary>
    public async ValueTask<Ticket> EnterExclusiveAsync()
    {
        Leases.Revoke();
        Ticket ticket;
        if (_inside > 0 || _waiters.Count > 0)
        {
            ticket = await Wait(isExclusive: true);
        }
        else
        {
            _isExclusive = true;
            ticket = Admit();
        }
        await Leases.DrainAsync(long.MaxValue);
        return ticket;
    }

    /// <summary>
    /// Ends the current epoch. Once <see cref="HasDrained"/> of the result is true, nobody is inside who entered
    /// before this call, but for one who has the gate alone; <see cref="EpochDrained"/> tells when to look.
    /// </summary>
    public long EndEpoch()
    {
        long ended = CurrentEpoch;
        _insideByEpoch.Add(0);
        Leases.EndEpoch(ended);
        DropDrained();
        if (!_awaitsLeases && !Leases.HasDrained(ended))
            _ = AwaitLeasesAsync();
        return ended;
    }

    public bool HasDrained(long epoch) => (_isExclusive || _firstEpoch > epoch) && Leases.HasDrained(epoch);

    /// <summary>Tells when sessions have left the epochs that have ended; else nobody might look again.</summary>
    private async Task AwaitLeasesAsync()
    {
        _awaitsLeases = true;
        long epoch;
        do
        {
            epoch = CurrentEpoch - 1;
            await Leases.DrainAsync(epoch);
            EpochDrained?.Invoke();
        }
        while (epoch < CurrentEpoch - 1);
        _awaitsLeases = false;
    }

    private ValueTask<Ticket> Wait(bool isExclusive)
    {
        var waiter = new Waiter(isExclusive);
        _waiters.Enqueue(waiter);
        return new ValueTask<Ticket>(waiter.Task);
    }

    private Ticket Admit()
    {
        _inside++;
        _insideByEpoch[^1]++;
        return new Ticket(this, CurrentEpoch);
    }

    private void Leave(long epoch)
    {
        _inside--;
        if (_isExclusive)
            Leases.Restore();
        _isExclusive = false;
        int index = (int)(epoch - _firstEpoch);
        Invariant.Assert(_insideByEpoch[index] > 0, "a request leaves the gate once");
        _insideByEpoch[index]--;
        if (DropDrained())
            EpochDrained?.Invoke();
        AdmitWaiters();
    }

    private bool DropDrained()
    {
        bool dropped = false;
        while (_insideByEpoch.Count > 1 && _insideByEpoch[0] == 0)
        {
            _insideByEpoch.RemoveAt(0);
            _firstEpoch++;
            dropped = true;
        }
        return dropped;
    }

    private void AdmitWaiters()
    {
        while (!_isExclusive && _waiters.TryPeek(out Waiter? next) && (!next.IsExclusive || _inside == 0))
        {
            _waiters.Dequeue();
            _isExclusive = next.IsExclusive;
            next.SetResult(Admit());
        }
    }

    /// <summary>A request's stay inside; dispose it once.</summary>
    public readonly struct Ticket(RequestGate gate, long epoch) : IDisposable
    {
        public void Dispose() => gate.Leave(epoch);
    }

    private sealed class Waiter(bool isExclusive)
        : TaskCompletionSource<Ticket>(TaskCreationOptions.RunContinuationsAsynchronously)
    {
        public bool IsExclusive { get; } = isExclusive;
    }
}
