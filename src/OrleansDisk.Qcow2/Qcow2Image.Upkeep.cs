using OrleansDisk.Qcow2.Concurrency;

namespace OrleansDisk.Qcow2;

/// <content>What whoever holds the image open does from time to time; the engine has no clock.</content>
public sealed partial class Qcow2Image
{
    /// <summary>After how much time without use tables are to leave memory; zero: never.</summary>
    public TimeSpan CacheCleanInterval => _metadata.CacheCleanInterval;

    /// <summary>
    /// Sets free what was discarded and waits for a write-back, so that its space comes back to the host though nobody
    /// flushes. Does nothing when nothing waits.
    /// </summary>
    /// <exception cref="Qcow2FailedException">A write failed; the image has stopped.</exception>
    public ValueTask ReclaimAsync() => IsReadOnly || !_metadata.Freed.AwaitsWriteBack ? ValueTask.CompletedTask : FlushAsync();

    /// <summary>Lets cached tables go that nobody has used since the last call (cache-clean-interval).</summary>
    public async ValueTask DropUnusedTablesAsync()
    {
        using RequestGate.Ticket ticket = await _metadata.Gate.EnterSharedAsync();
        ThrowIfClosed();
        _metadata.DropUnusedTables();
    }
}
