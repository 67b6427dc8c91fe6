using System.Collections.Concurrent;
using System.Runtime.CompilerServices;
using System.Runtime.ExceptionServices;

namespace OrleansDisk.Qcow2.Concurrency;

/// <summary>
/// The turns of an image: runs one thing at a time. A thread that finds the image idle runs its turn itself, since a hop
/// to another thread costs more than most turns do; otherwise turns run on the thread pool, in the order in which they
/// were posted. What a turn awaits comes back to it as another turn. All members may be called from any thread.
/// </summary>
/// <remarks>A synchronization context and not a task scheduler: a turn that runs at once then needs no task.</remarks>
public sealed class ImageTurns : SynchronizationContext
{
    /// <summary>Looks at a busy image before a turn is queued. Turns mostly end sooner than a hop takes.</summary>
    private const int SpinCount = 40;

    /// <summary>Queued turns that a thread runs after its own before it hands the rest over.</summary>
    private const int DrainCount = 16;

    private readonly ConcurrentQueue<(SendOrPostCallback Turn, object? State)> _queue = new();

    /// <summary>Turns that wait or run. Who raises it from 0 runs turns until it is 0 again.</summary>
    private int _pending;

    /// <summary>The context of the thread that has entered.</summary>
    private SynchronizationContext? _outer;

    /// <summary>Whether the caller runs in a turn of this image.</summary>
    public bool IsCurrent => Current == this;

    /// <summary>
    /// Begins a turn on the caller's thread if the image is idle, or soon will be. If true, the caller ends it with
    /// <see cref="Leave"/>, on the same thread, without awaiting anything in between.
    /// </summary>
    public bool TryEnter()
    {
        var spinner = new SpinWait();
        for (int i = 0; Interlocked.CompareExchange(ref _pending, 1, 0) != 0; i++)
        {
            if (i == SpinCount || IsCurrent)
                return false;
            spinner.SpinOnce(sleep1Threshold: -1);
        }
        _outer = Current;
        SetSynchronizationContext(this);
        return true;
    }

    /// <summary>Ends the turn that <see cref="TryEnter"/> began.</summary>
    public void Leave()
    {
        SynchronizationContext? outer = _outer;
        // What was queued meanwhile mostly belongs to this turn; but its replies are waiting to be sent.
        int limit = DrainCount;
        while (Interlocked.Decrement(ref _pending) > 0)
        {
            if (limit-- == 0)
            {
                RunQueueOnPool();
                break;
            }
            RunNext();
        }
        SetSynchronizationContext(outer);
    }

    /// <summary>Queues a turn. An exception that it throws ends the process, as one of a thread does.</summary>
    public override void Post(SendOrPostCallback d, object? state)
    {
        _queue.Enqueue((d, state));
        if (Interlocked.Increment(ref _pending) == 1)
            RunQueueOnPool();
    }

    /// <summary>Not supported: it would make one turn wait for another.</summary>
    public override void Send(SendOrPostCallback d, object? state) => throw new NotSupportedException("an image's turns are never waited for by a thread");

    public override SynchronizationContext CreateCopy() => this;

    /// <summary>Runs a function as a turn; completes when all that follows from it has ended.</summary>
    public async Task<T> RunAsync<T>(Func<Task<T>> turn)
    {
        await new Entry(this);
        return await turn();
    }

    /// <summary>Runs a function as a turn; completes when all that follows from it has ended.</summary>
    public async Task RunAsync(Func<Task> turn)
    {
        await new Entry(this);
        await turn();
    }

    private void RunQueueOnPool() =>
        ThreadPool.UnsafeQueueUserWorkItem(static turns => turns.RunQueue(), this, preferLocal: false);

    private void RunQueue()
    {
        SetSynchronizationContext(this);
        do
            RunNext();
        while (Interlocked.Decrement(ref _pending) > 0);
        SetSynchronizationContext(null);
    }

    private void RunNext()
    {
        (SendOrPostCallback Turn, object? State) next;
        var spinner = new SpinWait();
        // Counted by whoever is just about to add it, or has.
        while (!_queue.TryDequeue(out next))
            spinner.SpinOnce();
        try
        {
            next.Turn(next.State);
        }
        catch (Exception e)
        {
            // On a thread of its own: this one may be somebody's who has nothing to do with that turn.
            var thrown = ExceptionDispatchInfo.Capture(e);
            ThreadPool.UnsafeQueueUserWorkItem(static thrown => thrown.Throw(), thrown, preferLocal: false);
        }
    }

    /// <summary>Awaiting it goes on in a turn.</summary>
    private readonly struct Entry(ImageTurns turns) : INotifyCompletion
    {
        public bool IsCompleted => turns.IsCurrent;

        public Entry GetAwaiter() => this;

        public void OnCompleted(Action continuation) => turns.Post(static state => ((Action)state!)(), continuation);

        public void GetResult()
        {
        }
    }
}
