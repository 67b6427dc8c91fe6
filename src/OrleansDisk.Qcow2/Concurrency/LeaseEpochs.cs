namespace OrleansDisk.Qcow2.Concurrency;

/// <summary>
/// Knows which leases are being used at a moment. Sessions enter and leave on their own threads; everything else belongs
/// to the image's turns. The image changes a mapping first and looks at the leases then, a session enters first and looks
/// at the mapping then: so either the session sees the change, or the image sees the session (docs/consistency.md, W5).
/// </summary>
internal sealed class LeaseEpochs
{
    private readonly List<LeaseSlot> _slots = [];
    private long _epoch = 1;
    private int _revocations;
    private TaskCompletionSource? _someoneLeft;

    /// <summary>Whether sessions must ask the image.</summary>
    private bool IsRevoked => Volatile.Read(ref _revocations) != 0;

    /// <summary>Adds a session.</summary>
    public LeaseSlot Add()
    {
        _slots.RemoveAll(slot => slot.IsClosed);
        var slot = new LeaseSlot();
        _slots.Add(slot);
        return slot;
    }

    /// <summary>A session enters, on its own thread. False when leases are revoked: then it is not inside.</summary>
    public bool TryEnter(LeaseSlot slot)
    {
        slot.Enter(Volatile.Read(ref _epoch));
        if (!IsRevoked && !slot.IsClosed)
            return true;
        Leave(slot);
        return false;
    }

    /// <summary>A session leaves, on its own thread.</summary>
    public void Leave(LeaseSlot slot)
    {
        if (slot.Leave())
            Volatile.Read(ref _someoneLeft)!.TrySetResult();
    }

    /// <summary>Who enters from now on has a later epoch than <paramref name="epoch"/>.</summary>
    public void EndEpoch(long epoch) => Volatile.Write(ref _epoch, epoch + 1);

    /// <summary>Whether no session is inside that entered in this epoch or before.</summary>
    public bool HasDrained(long epoch)
    {
        Interlocked.MemoryBarrier(); // the change of the mapping is seen before the slots are looked at
        foreach (LeaseSlot slot in _slots)
        {
            if (slot.IsInside(epoch))
                return false;
        }
        return true;
    }

    /// <summary>Waits until no session is inside that entered in this epoch or before. It takes no thread.</summary>
    public async ValueTask DrainAsync(long epoch)
    {
        while (!HasDrained(epoch))
        {
            if (_someoneLeft is null || _someoneLeft.Task.IsCompleted)
                Volatile.Write(ref _someoneLeft, new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously));
            Task left = _someoneLeft.Task;
            bool isWaited = false;
            foreach (LeaseSlot slot in _slots)
                isWaited |= slot.AskToTell(epoch);
            if (isWaited)
                await left;
        }
    }

    /// <summary>Keeps sessions out until <see cref="Restore"/>; calls add up.</summary>
    public void Revoke() => Interlocked.Increment(ref _revocations);

    /// <summary>Takes one revocation back.</summary>
    public void Restore() => Interlocked.Decrement(ref _revocations);
}
