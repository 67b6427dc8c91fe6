namespace OrleansDisk.Qcow2.Concurrency;

/// <summary>Work on the thread pool, for which a turn of the image waits without holding up the others.</summary>
internal static class ThreadPoolWork
{
    /// <summary>Runs work that touches nothing of the image's state; what it throws, the task fails with.</summary>
    public static ValueTask RunAsync(Action work) => new(Task.Factory.StartNew(
        work, CancellationToken.None, TaskCreationOptions.DenyChildAttach, TaskScheduler.Default));
}
