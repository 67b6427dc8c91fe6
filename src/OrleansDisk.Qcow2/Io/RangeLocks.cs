namespace OrleansDisk.Qcow2.Io;

/// <summary>
/// Ranges of a file that are being written. Those that share go on side by side; who needs a range alone waits for
/// every other that overlaps it, and they for him. Waiting blocks the thread.
/// </summary>
internal sealed class RangeLocks
{
    private readonly List<Held> _held = [];

    /// <summary>Takes a range; dispose the result to let go of it.</summary>
    /// <param name="start">First byte.</param>
    /// <param name="end">Behind the last byte.</param>
    /// <param name="isAlone">Whether nobody else may have a part of it meanwhile.</param>
    public Held Take(long start, long end, bool isAlone)
    {
        var taken = new Held(this, start, end, isAlone);
        lock (_held)
        {
            while (_held.Exists(taken.Excludes))
                Monitor.Wait(_held);
            _held.Add(taken);
        }
        return taken;
    }

    /// <summary>A range that someone has.</summary>
    public sealed class Held(RangeLocks owner, long start, long end, bool isAlone) : IDisposable
    {
        private readonly long _start = start;
        private readonly long _end = end;
        private readonly bool _isAlone = isAlone;

        internal bool Excludes(Held other) => (_isAlone || other._isAlone) && other._start < _end && _start < other._end;

        public void Dispose()
        {
            lock (owner._held)
            {
                owner._held.Remove(this);
                Monitor.PulseAll(owner._held);
            }
        }
    }
}
