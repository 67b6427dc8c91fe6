namespace OrleansDisk.Nbd.Server;

/// <summary>Bytes in flight of all connections beyond what each has of its own; and where connections wait for theirs.</summary>
internal sealed class SharedBudget(long limitBytes)
{
    private readonly object _gate = new();
    private long _bytes;
    private int _waiting;

    /// <summary>Adds (or with a negative number gives back) bytes; whether the limit still holds.</summary>
    public bool Add(long bytes) => Interlocked.Add(ref _bytes, bytes) <= limitBytes;

    /// <summary>Waits until <paramref name="condition"/> holds, which is asked again after each <see cref="Wake"/>.</summary>
    public void WaitFor(Func<bool> condition)
    {
        lock (_gate)
        {
            // The increment is a full fence before the condition is read, as the change of the condition is one
            // before Wake reads the count: one of the two sees the other.
            Interlocked.Increment(ref _waiting);
            try
            {
                while (!condition())
                    Monitor.Wait(_gate);
            }
            finally
            {
                Interlocked.Decrement(ref _waiting);
            }
        }
    }

    public void Wake()
    {
        if (Volatile.Read(ref _waiting) == 0)
            return;
        lock (_gate)
            Monitor.PulseAll(_gate);
    }
}

/// <summary>
/// Bytes in flight of one connection. Only the connection's thread charges; any thread releases. The first
/// <see cref="OwnBytes"/> are the connection's own and cost two interlocked additions a request; beyond them it
/// borrows from the <see cref="SharedBudget"/>.
/// </summary>
internal sealed class ConnectionBudget
{
    public const long OwnBytes = 1 << 20;

    private readonly SharedBudget _shared;
    private readonly long _limitBytes;
    private readonly Func<bool> _chargesWanted;
    private readonly Func<bool> _isIdle;
    private long _bytes;
    private long _wantedBytes;
    private bool _charged;
    private bool _abandoned;

    public ConnectionBudget(SharedBudget shared, long limitBytes)
    {
        _shared = shared;
        _limitBytes = limitBytes;
        _chargesWanted = () => Volatile.Read(ref _abandoned) || (_charged = TryCharge(_wantedBytes));
        _isIdle = () => IsIdle;
    }

    public bool IsIdle => Volatile.Read(ref _bytes) == 0;

    /// <summary>
    /// Charges a request unless it must wait. With nothing in flight it is always let in: its own replies are the
    /// only thing that it could wait for.
    /// </summary>
    public bool TryCharge(long bytes)
    {
        long before = Volatile.Read(ref _bytes);
        if (before > 0 && before + bytes > _limitBytes)
            return false;
        long after = Interlocked.Add(ref _bytes, bytes);
        long borrowed = Borrowed(after) - Borrowed(after - bytes);
        if (borrowed == 0 || _shared.Add(borrowed) || after == bytes)
            return true;
        // No wake: two connections that wait would wake each other for ever. What this one has in flight wakes it.
        GiveBack(bytes);
        return false;
    }

    /// <summary>Waits until the request is charged; false when the connection was given up meanwhile.</summary>
    public bool Charge(long bytes)
    {
        _wantedBytes = bytes;
        _charged = false;
        _shared.WaitFor(_chargesWanted);
        return _charged;
    }

    public void Release(long bytes)
    {
        GiveBack(bytes);
        _shared.Wake();
    }

    /// <summary>Ends the wait for room.</summary>
    public void Abandon()
    {
        Volatile.Write(ref _abandoned, true);
        Interlocked.MemoryBarrier();
        _shared.Wake();
    }

    public void WaitUntilIdle() => _shared.WaitFor(_isIdle);

    private void GiveBack(long bytes)
    {
        long after = Interlocked.Add(ref _bytes, -bytes);
        long returned = Borrowed(after + bytes) - Borrowed(after);
        if (returned > 0)
            _shared.Add(-returned);
    }

    private static long Borrowed(long bytes) => Math.Max(0, bytes - OwnBytes);
}
