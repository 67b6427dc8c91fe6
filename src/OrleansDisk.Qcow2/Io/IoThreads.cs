namespace OrleansDisk.Qcow2.Io;

/// <summary>
/// Threads for calls that wait for a disk. They are no threads of the pool, on which turns of other images run: a disk that
/// hangs holds up who uses it, and nobody else. There are as many as there are calls (<see cref="IoLane"/> bounds those of
/// one file); those without work are used again, the last one first, and end after a while.
/// </summary>
internal static class IoThreads
{
    private const int IdleMilliseconds = 10_000;
    private const int StackBytes = 256 << 10;

    private static readonly Lock _gate = new();
    private static readonly List<Worker> _idle = [];

    /// <summary>Runs the work, which does not throw.</summary>
    public static void Start(IThreadPoolWorkItem work)
    {
        Worker? worker = null;
        lock (_gate)
        {
            if (_idle.Count > 0)
            {
                worker = _idle[^1];
                _idle.RemoveAt(_idle.Count - 1);
            }
        }
        if (worker is not null)
            worker.Hand(work);
        else
            StartThread(work);
    }

    private static void StartThread(IThreadPoolWorkItem work)
    {
        try
        {
            new Thread(new Worker(work).Run, StackBytes) { IsBackground = true, Name = "disk" }.UnsafeStart();
        }
        catch (OutOfMemoryException)
        {
            // The system has no more threads: the pool has some.
            ThreadPool.UnsafeQueueUserWorkItem(work, preferLocal: false);
        }
    }

    private sealed class Worker(IThreadPoolWorkItem first)
    {
        private readonly object _signal = new();
        private IThreadPoolWorkItem? _work = first;

        public void Run()
        {
            do
            {
                IThreadPoolWorkItem work = _work!;
                _work = null;
                work.Execute();
            }
            while (WaitForWork());
        }

        public void Hand(IThreadPoolWorkItem work)
        {
            lock (_signal)
            {
                _work = work;
                Monitor.Pulse(_signal);
            }
        }

        private bool WaitForWork()
        {
            lock (_gate)
                _idle.Add(this);
            lock (_signal)
            {
                while (_work is null)
                {
                    if (!Monitor.Wait(_signal, IdleMilliseconds) && TryRetire())
                        return false;
                }
            }
            return true;
        }

        /// <summary>False when somebody has taken this worker, and is about to hand it work.</summary>
        private bool TryRetire()
        {
            lock (_gate)
                return _idle.Remove(this);
        }
    }
}
