namespace OrleansDisk.Grains;

/// <summary>
/// Runs operations of a reentrant grain one after the other, in the order of their calls. For its scheduler only.
/// </summary>
internal sealed class OperationQueue
{
    private Task _last = Task.CompletedTask;

    public async Task RunAsync(Func<Task> operation)
    {
        Task previous = _last;
        var ended = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        _last = ended.Task;
        await previous;
        try
        {
            await operation();
        }
        finally
        {
            ended.SetResult();
        }
    }
}
