using OrleansDisk.Qcow2;

namespace OrleansDisk.Exports;

/// <summary>
/// Looks after an open disk from time to time, for as long as it is not disposed: what was discarded comes back to the
/// host though no client flushes, and tables that nobody uses leave memory.
/// </summary>
public sealed class DiskUpkeep : IDisposable
{
    /// <summary>Discarded space is back on the host after twice this time at most.</summary>
    public static TimeSpan Interval { get; } = TimeSpan.FromSeconds(4);

    private readonly SharedDisk _disk;
    private readonly ITimer _timer;
    private int _isRunning;

    public DiskUpkeep(SharedDisk disk, TimeProvider time)
    {
        _disk = disk;
        _timer = time.CreateTimer(static upkeep => ((DiskUpkeep)upkeep!).Start(), this, Interval, Interval);
    }

    public void Dispose() => _timer.Dispose();

    private void Start()
    {
        if (Interlocked.Exchange(ref _isRunning, 1) == 0)
            _ = RunAsync();
    }

    private async Task RunAsync()
    {
        try
        {
            await _disk.Turns.RunAsync(() => _disk.KeepUpAsync(Interval));
        }
        catch (Exception e) when (e is IOException or InvariantException)
        {
            // The image has stopped; clients hear of it with their next request.
        }
        finally
        {
            Volatile.Write(ref _isRunning, 0);
        }
    }
}
