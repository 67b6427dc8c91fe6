namespace OrleansDisk.Simulation.Tests;

/// <summary>
/// Runs everything on the test's own thread and lets a seed choose what runs next, so that a run can be had again.
/// </summary>
internal sealed class SeededScheduler(Random random) : TaskScheduler
{
    private readonly List<Task> _ready = [];

    /// <summary>Runs an action to its end.</summary>
    public void Run(Func<Task> action)
    {
        // The test runner's context would take the continuations away.
        SynchronizationContext.SetSynchronizationContext(null);
        Task run = Task.Factory.StartNew(action, CancellationToken.None, TaskCreationOptions.None, this).Unwrap();
        while (!run.IsCompleted)
        {
            Assert.True(_ready.Count > 0, "nothing is left to run, and the run has not ended: it waits for itself");
            int next = random.Next(_ready.Count);
            Task task = _ready[next];
            _ready[next] = _ready[^1];
            _ready.RemoveAt(_ready.Count - 1);
            TryExecuteTask(task);
        }
        run.GetAwaiter().GetResult();
    }

    /// <summary>Lets others go first for a while that the seed chooses; now and then for a long while.</summary>
    /// <param name="longOneIn">One pause in so many is a long one.</param>
    public async ValueTask PauseAsync(int longOneIn = 16)
    {
        for (int turns = random.Next(random.Next(longOneIn) == 0 ? 400 : 4); turns > 0; turns--)
            await Task.Yield();
    }

    protected override void QueueTask(Task task) => _ready.Add(task);

    protected override bool TryExecuteTaskInline(Task task, bool taskWasPreviouslyQueued) => false;

    protected override IEnumerable<Task> GetScheduledTasks() => _ready;
}
