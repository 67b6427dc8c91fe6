using System.Collections.Concurrent;
using System.Threading.Tasks.Sources;
using Microsoft.Win32.SafeHandles;

namespace OrleansDisk.Qcow2.Io;

/// <summary>
/// The long writes into one file, on a thread of the pool, one after the other in the order in which they were asked for.
/// The kernel lets one thread at a time write into a file's cached pages; more of them would only spin on its lock, while
/// there are buffers to be filled.
/// </summary>
/// <param name="handle">The file, which stays open while a write is under way, whatever becomes of its owner.</param>
internal sealed class WriteLane(SafeFileHandle handle)
{
    private readonly ConcurrentQueue<QueuedWrite> _queue = new();

    /// <summary>Writes that wait or run. Who raises it from 0 starts the thread that runs them until it is 0 again.</summary>
    private int _pending;

    /// <summary>Runs a write, which may block, when those before it are done; what it throws, the task fails with.</summary>
    /// <exception cref="ObjectDisposedException">The file is closed.</exception>
    public ValueTask StartAsync(Action write)
    {
        bool isHeld = false;
        handle.DangerousAddRef(ref isHeld);
        var queued = new QueuedWrite(write);
        _queue.Enqueue(queued);
        if (Interlocked.Increment(ref _pending) == 1)
            ThreadPool.UnsafeQueueUserWorkItem(static lane => lane.Run(), this, preferLocal: false);
        return queued.Task;
    }

    private void Run()
    {
        do
        {
            QueuedWrite? next;
            var spinner = new SpinWait();
            // Counted by whoever has added it.
            while (!_queue.TryDequeue(out next))
                spinner.SpinOnce();
            next.Run();
            handle.DangerousRelease();
        }
        while (Interlocked.Decrement(ref _pending) > 0);
    }

    private sealed class QueuedWrite(Action write) : IValueTaskSource
    {
        // What follows a write must not hold up the next one.
        private ManualResetValueTaskSourceCore<bool> _completion = new() { RunContinuationsAsynchronously = true };

        public ValueTask Task => new(this, _completion.Version);

        public void Run()
        {
            try
            {
                write();
            }
            catch (Exception e)
            {
                _completion.SetException(e);
                return;
            }
            _completion.SetResult(true);
        }

        public void GetResult(short token) => _completion.GetResult(token);

        public ValueTaskSourceStatus GetStatus(short token) => _completion.GetStatus(token);

        public void OnCompleted(
            Action<object?> continuation, object? state, short token, ValueTaskSourceOnCompletedFlags flags) =>
            _completion.OnCompleted(continuation, state, token, flags);
    }
}
