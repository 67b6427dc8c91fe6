namespace Orleans.Runtime;

/// <summary>Runs the turns of one activation, one at a time and in order, on thread pool threads.</summary>
internal sealed class ActivationScheduler : TaskScheduler, IThreadPoolWorkItem
{
    /// <summary>After so many turns in a row the thread goes to other activations.</summary>
    private const int TurnsPerQuantum = 64;

    [ThreadStatic]
    private static ActivationScheduler? s_running;

    private readonly Queue<object> _turns = new(); // Task or Request; also the lock
    private bool _scheduled;

    /// <summary>Queues the start of a request: its first turn.</summary>
    public void Start(Request request) => Enqueue(request);

    protected override void QueueTask(Task task) => Enqueue(task);

    // Only inside one of our own turns: there a continuation cannot overlap another turn.
    protected override bool TryExecuteTaskInline(Task task, bool taskWasPreviouslyQueued) =>
        s_running == this && !taskWasPreviouslyQueued && TryExecuteTask(task);

    protected override IEnumerable<Task> GetScheduledTasks()
    {
        lock (_turns)
            return _turns.OfType<Task>().ToArray();
    }

    private void Enqueue(object turn)
    {
        lock (_turns)
        {
            _turns.Enqueue(turn);
            if (_scheduled)
                return;
            _scheduled = true;
        }
        ThreadPool.UnsafeQueueUserWorkItem(this, preferLocal: true);
    }

    void IThreadPoolWorkItem.Execute()
    {
        s_running = this;
        try
        {
            for (int turns = 0; turns < TurnsPerQuantum; turns++)
            {
                object? turn;
                lock (_turns)
                {
                    if (!_turns.TryDequeue(out turn))
                    {
                        _scheduled = false;
                        return;
                    }
                }
                // The task is made here, not by the caller, so that the caller's async locals stay with the caller.
                if (turn is Task task)
                    TryExecuteTask(task);
                else
                    new Task(static request => ((Request)request!).Start(), turn).RunSynchronously(this);
            }
        }
        finally
        {
            s_running = null;
        }
        ThreadPool.UnsafeQueueUserWorkItem(this, preferLocal: false);
    }
}
