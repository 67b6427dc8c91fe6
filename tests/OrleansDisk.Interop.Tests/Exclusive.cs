namespace OrleansDisk.Interop.Tests;

/// <summary>Runs a test's calls to the engine on an exclusive scheduler of its own, as the engine asks for.</summary>
internal static class Exclusive
{
    /// <summary>Far more than any test needs; an engine that never ends fails the test instead of the run.</summary>
    public static readonly TimeSpan Patience = TimeSpan.FromMinutes(2);

    public static Task Run(Func<Task> action) =>
        new TaskFactory(new ConcurrentExclusiveSchedulerPair().ExclusiveScheduler).StartNew(action).Unwrap().WaitAsync(Patience);
}
