using System.Collections.Concurrent;

namespace OrleansDisk.Cli.Nbd;

/// <summary>
/// Runs one task at a time: the turns of an image. A connection's thread that finds the image idle runs its turn
/// itself, since a hop to another thread costs more than most turns do; otherwise turns run on the thread pool, in
/// the order in which they were queued.
/// </summary>
internal sealed class TurnScheduler : TaskScheduler
{
    /// <summary>Looks at a busy image before a turn is queued. Turns mostly end sooner than a hop takes.</summary>
    private const int SpinCount = 40;

    /// <summary>Queued tasks that a connection's thread runs after its own before it hands the rest over.</summary>
    private const int DrainCount = 16;

    private readonly ConcurrentQueue<Task> _queue = new();

    /// <summary>Tasks that wait or run. Who raises it from 0 runs tasks until it is 0 again.</summary>
    private int _pending;

    public override int MaximumConcurrencyLevel => 1;

    /// <summary>Starts a turn: on this thread when the image is idle, else in the queue.</summary>
    /// <param name="turn">A task that has not been started.</param>
    public void Start(Task turn)
    {
        var spinner = new SpinWait();
        for (int i = 0; i < SpinCount; i++)
        {
            if (Interlocked.CompareExchange(ref _pending, 1, 0) == 0)
            {
                RunFirst(turn);
                return;
            }
            spinner.SpinOnce(sleep1Threshold: -1);
        }
        turn.Start(this);
    }

    /// <summary>Runs something as a turn and waits for all that follows from it.</summary>
    public Task<T> RunAsync<T>(Func<Task<T>> function) =>
        Task.Factory.StartNew(function, CancellationToken.None, TaskCreationOptions.DenyChildAttach, this).Unwrap();

    protected override void QueueTask(Task task)
    {
        _queue.Enqueue(task);
        if (Interlocked.Increment(ref _pending) == 1)
            RunQueueOnPool();
    }

    protected override bool TryExecuteTaskInline(Task task, bool taskWasPreviouslyQueued) =>
        (_isStarting == task || Current == this) && TryExecuteTask(task);

    protected override IEnumerable<Task> GetScheduledTasks() => _queue.ToArray();

    /// <summary>The task that <see cref="Start"/> is running on this thread.</summary>
    [ThreadStatic]
    private static Task? _isStarting;

    private void RunFirst(Task turn)
    {
        _isStarting = turn;
        try
        {
            turn.RunSynchronously(this);
        }
        finally
        {
            _isStarting = null;
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
        }
    }

    private void RunQueueOnPool() =>
        ThreadPool.UnsafeQueueUserWorkItem(static scheduler => scheduler.RunQueue(), this, preferLocal: false);

    private void RunQueue()
    {
        do
            RunNext();
        while (Interlocked.Decrement(ref _pending) > 0);
    }

    private void RunNext()
    {
        Task? task;
        var spinner = new SpinWait();
        // Counted by whoever is just about to add it, or has.
        while (!_queue.TryDequeue(out task))
            spinner.SpinOnce();
        TryExecuteTask(task);
    }
}
