namespace OrleansDisk.Simulation.Host;

/// <summary>
/// Runs everything on the caller's thread and lets a seed choose what runs next, so that a run can be had again. Its
/// time is the number of turns taken.
/// </summary>
internal sealed class SeededScheduler(Random random) : TaskScheduler
{
    /// <summary>Slow threads at a time.</summary>
    private const int MaxDepth = 3;
    private readonly List<Task> _ready = [];
    private readonly PriorityQueue<TaskCompletionSource, long> _paused = new();
    private long _turn;
    private int _depth;
    private SimulationFailure? _failure;

    /// <summary>Ends the run with a failure, whoever catches what is thrown meanwhile.</summary>
    public void Fail(SimulationFailure failure) => _failure ??= failure;

    /// <summary>Runs an action to its end; what it left behind does not run any more.</summary>
    /// <exception cref="SimulationFailure">Nothing is left to run, and the action has not ended.</exception>
    public void Run(Func<Task> action)
    {
        // The test runner's context would take the continuations away.
        SynchronizationContext.SetSynchronizationContext(null);
        Task run = Task.Factory.StartNew(action, CancellationToken.None, TaskCreationOptions.None, this).Unwrap();
        while (!run.IsCompleted && _failure is null)
            TakeTurn();
        if (_failure is not null)
            throw _failure;
        run.GetAwaiter().GetResult();
    }

    /// <summary>Lets others go first for a while that the seed chooses; now and then for a long while.</summary>
    /// <param name="longOneIn">One pause in so many is a long one.</param>
    public ValueTask PauseAsync(int longOneIn = 16) => WaitAsync(random.Next(random.Next(longOneIn) == 0 ? 400 : 4));

    /// <summary>Lets others go first for a number of turns, or until none of them can go on.</summary>
    public ValueTask WaitAsync(int turns)
    {
        if (turns == 0)
            return ValueTask.CompletedTask;
        var pause = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        _paused.Enqueue(pause, _turn + turns);
        return new ValueTask(pause.Task);
    }

    /// <summary>
    /// Takes some turns inside of the present one: what a thread beside the scheduler sees happen while it is slow.
    /// </summary>
    public void TakeTurns(int count)
    {
        if (_depth >= MaxDepth)
            return;
        _depth++;
        while (count-- > 0 && (_ready.Count > 0 || _paused.Count > 0) && _failure is null)
            TakeTurn();
        _depth--;
    }

    protected override void QueueTask(Task task) => _ready.Add(task);

    protected override bool TryExecuteTaskInline(Task task, bool taskWasPreviouslyQueued) => false;

    protected override IEnumerable<Task> GetScheduledTasks() => _ready;

    private void TakeTurn()
    {
        _turn++;
        if (_ready.Count == 0)
        {
            if (!_paused.TryPeek(out _, out long earliest))
                throw new SimulationFailure("progress", "nothing is left to run, and the run has not ended: it waits for itself");
            _turn = Math.Max(_turn, earliest);
        }
        while (_paused.TryPeek(out TaskCompletionSource? pause, out long due) && due <= _turn)
        {
            _paused.Dequeue();
            pause.SetResult();
        }
        if (_ready.Count == 0)
            return;
        int next = random.Next(_ready.Count);
        Task task = _ready[next];
        _ready[next] = _ready[^1];
        _ready.RemoveAt(_ready.Count - 1);
        TryExecuteTask(task);
    }
}
