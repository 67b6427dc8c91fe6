using System.Collections.Concurrent;
using System.Threading.Tasks.Sources;
using Microsoft.Win32.SafeHandles;

namespace OrleansDisk.Qcow2.Io;

/// <summary>
/// Calls on one file that may wait for the disk, in the order in which they were asked for, so many at a time.
/// </summary>
/// <param name="handle">The file, which stays open while a call is under way, whatever becomes of its owner.</param>
/// <param name="width">How many run at a time.</param>
internal sealed class IoLane(SafeFileHandle handle, int width) : IThreadPoolWorkItem
{
    private readonly ConcurrentQueue<IThreadPoolWorkItem> _queue = new();

    /// <summary>Calls that wait or run; as many of them as fit have a thread.</summary>
    private int _pending;

    /// <summary>Runs a call; what it throws, the task fails with.</summary>
    /// <exception cref="ObjectDisposedException">The file is closed.</exception>
    public ValueTask RunAsync(Action call)
    {
        var queued = new Call(this, call);
        Start(queued);
        return queued.Task;
    }

    /// <summary>Runs work that does not throw, and that calls <see cref="LetGo"/> before it tells anybody of its end.</summary>
    /// <exception cref="ObjectDisposedException">The file is closed.</exception>
    public void Start(IThreadPoolWorkItem work)
    {
        bool isHeld = false;
        handle.DangerousAddRef(ref isHeld);
        _queue.Enqueue(work);
        if (Interlocked.Increment(ref _pending) <= width)
            IoThreads.Start(this);
    }

    /// <summary>The file is not needed any more by a call that was started.</summary>
    public void LetGo() => handle.DangerousRelease();

    /// <summary>Runs one call, and those that have found no thread.</summary>
    void IThreadPoolWorkItem.Execute()
    {
        do
        {
            // It is there: who counts it has queued it before.
            _ = _queue.TryDequeue(out IThreadPoolWorkItem? work);
            work!.Execute();
        }
        while (Interlocked.Decrement(ref _pending) >= width);
    }

    private sealed class Call(IoLane lane, Action call) : IValueTaskSource, IThreadPoolWorkItem
    {
        // What follows a call must not hold up the next one.
        private ManualResetValueTaskSourceCore<bool> _completion = new() { RunContinuationsAsynchronously = true };

        public ValueTask Task => new(this, _completion.Version);

        public void Execute()
        {
            Exception? failure = null;
            try
            {
                call();
            }
            catch (Exception e)
            {
                failure = e;
            }
            lane.LetGo();
            if (failure is null)
                _completion.SetResult(true);
            else
                _completion.SetException(failure);
        }

        public void GetResult(short token) => _completion.GetResult(token);

        public ValueTaskSourceStatus GetStatus(short token) => _completion.GetStatus(token);

        public void OnCompleted(
            Action<object?> continuation, object? state, short token, ValueTaskSourceOnCompletedFlags flags) =>
            _completion.OnCompleted(continuation, state, token, flags);
    }
}
