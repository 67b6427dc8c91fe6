using OrleansDisk.Qcow2.Concurrency;
using OrleansDisk.Qcow2.Data;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Qcow2;

/// <summary>
/// An open disk with the turns that it runs in, for all in this process who use it. Only <see cref="HasEnded"/>,
/// <see cref="Turns"/> and what never changes may be touched outside a turn.
/// </summary>
/// <param name="source">What is read.</param>
/// <param name="layers">The disk's chain, from the top (<see cref="MapOperation.LayersOf"/>).</param>
/// <param name="turns">Where everything that concerns the disk runs, from its opening to its closing.</param>
public sealed class SharedDisk(IDiskSource source, IReadOnlyList<MapLayer> layers, ImageTurns turns)
{
    private int _runningCount;
    private TaskCompletionSource? _drained;
    private volatile bool _hasEnded;
    private TimeSpan _sinceCleaning;

    public IDiskSource Source => source;

    /// <summary>The same disk as an image, or null when it is none.</summary>
    public Qcow2Image? Image { get; } = source as Qcow2Image;

    /// <summary>The same disk for changing it, or null when it is only read.</summary>
    public IWritableDisk? Writable { get; } = source is IWritableDisk { IsReadOnly: false } disk ? disk : null;

    public IReadOnlyList<MapLayer> Layers => layers;

    public ImageTurns Turns => turns;

    /// <summary>Whether the disk is closed, or about to be. Set in a turn: a turn that sees false may begin requests.</summary>
    public bool HasEnded => _hasEnded;

    /// <summary>In a turn: counts work under way, which <see cref="CloseAsync"/> waits for.</summary>
    public void Begin() => _runningCount++;

    /// <summary>In a turn: work that was counted is over.</summary>
    public void End()
    {
        if (--_runningCount == 0)
            _drained?.TrySetResult();
    }

    /// <summary>
    /// In a turn, from time to time: gives discarded space back to the host though nobody flushes, and lets tables go that
    /// nobody uses.
    /// </summary>
    /// <param name="sinceLast">Time since the last call.</param>
    /// <exception cref="Qcow2FailedException">A write failed; the image has stopped.</exception>
    public async Task KeepUpAsync(TimeSpan sinceLast)
    {
        if (_hasEnded || Image is not { } image)
            return;
        Begin();
        try
        {
            await image.ReclaimAsync();
            _sinceCleaning += sinceLast;
            if (image.CacheCleanInterval > TimeSpan.Zero && _sinceCleaning >= image.CacheCleanInterval)
            {
                _sinceCleaning = TimeSpan.Zero;
                await image.DropUnusedTablesAsync();
            }
        }
        finally
        {
            End();
        }
    }

    /// <summary>In a turn: lets nothing more begin, waits for what is under way, and closes the disk.</summary>
    public async Task CloseAsync()
    {
        _hasEnded = true;
        if (_runningCount > 0)
        {
            _drained ??= new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            await _drained.Task;
        }
        await source.DisposeAsync();
    }
}
