using System.Runtime.InteropServices;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Cli.Opening.Blkdebug;

/// <summary>
/// The blkdebug driver's rules and its state. An event makes the error rules that it meets the ones that hold, until
/// another event brings others; requests then get their errors. Runs in the turns of the disk.
/// </summary>
internal sealed class BlkdebugRules(IEnumerable<BlkdebugRule> rules)
{
    private readonly List<BlkdebugRule> _rules = [.. rules];
    private readonly List<BlkdebugRule> _active = [];
    private readonly List<(string Tag, TaskCompletionSource Resumed)> _suspended = [];
    private readonly List<(string Tag, TaskCompletionSource Found)> _waiting = [];
    private int _state = 1;

    /// <summary>Told in QEMU's words when a request is stopped and when it goes on.</summary>
    public Action<string>? Report { get; set; }

    /// <summary>An event happens; completes when the requests that its breakpoints stop may go on.</summary>
    public ValueTask TriggerAsync(string name)
    {
        int newState = _state;
        bool bringsErrors = false;
        List<TaskCompletionSource>? stops = null;
        foreach (BlkdebugRule rule in _rules.Where(rule => rule.Event == name && (rule.State == 0 || rule.State == _state)).ToList())
        {
            if (rule.Tag is { } tag)
            {
                (stops ??= []).Add(Suspend(rule, tag));
                continue;
            }
            if (rule.NewState is { } next)
            {
                newState = next;
                continue;
            }
            if (!bringsErrors)
                _active.Clear();
            bringsErrors = true;
            _active.Add(rule);
        }
        _state = newState;
        return stops is null ? ValueTask.CompletedTask : new ValueTask(Task.WhenAll(stops.Select(stop => stop.Task)));
    }

    /// <summary>A request is about to be done.</summary>
    /// <exception cref="BlockFileException">A rule wants it to fail.</exception>
    public void Check(BlkdebugIoTypes type, string file, long offset, long bytes)
    {
        if (_active.Find(rule => rule.Matches(type, offset, bytes)) is not { ErrorNumber: not 0 } rule)
            return;
        if (rule.Once)
        {
            _active.Remove(rule);
            _rules.Remove(rule);
        }
        throw new BlockFileException("using", file, rule.ErrorNumber, Marshal.GetPInvokeErrorMessage(rule.ErrorNumber));
    }

    /// <summary>Stops the next request that comes to an event; false when there is no such event.</summary>
    public bool TryBreak(string name, string tag)
    {
        if (!BlkdebugEvents.Exists(name))
            return false;
        _rules.Insert(0, new BlkdebugRule(name) { Tag = tag });
        return true;
    }

    /// <summary>Takes a breakpoint away and lets what it stopped go on; false when there is neither.</summary>
    public bool TryRemoveBreak(string tag)
    {
        bool found = _rules.RemoveAll(rule => rule.Tag == tag) > 0;
        while (TryResume(tag))
            found = true;
        return found;
    }

    /// <summary>Lets a stopped request go on; false when none has the tag.</summary>
    public bool TryResume(string tag)
    {
        int index = _suspended.FindLastIndex(request => request.Tag == tag);
        if (index < 0)
            return false;
        Report?.Invoke($"blkdebug: Resuming request '{tag}'");
        TaskCompletionSource resumed = _suspended[index].Resumed;
        _suspended.RemoveAt(index);
        resumed.SetResult();
        return true;
    }

    /// <summary>Waits until a request with the tag is stopped.</summary>
    public Task WaitForBreakAsync(string tag)
    {
        if (_suspended.Exists(request => request.Tag == tag))
            return Task.CompletedTask;
        var found = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        _waiting.Add((tag, found));
        return found.Task;
    }

    private TaskCompletionSource Suspend(BlkdebugRule rule, string tag)
    {
        _rules.Remove(rule);
        var resumed = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        _suspended.Add((tag, resumed));
        Report?.Invoke($"blkdebug: Suspended request '{tag}'");
        foreach ((string waitedFor, TaskCompletionSource found) in _waiting.ToList())
        {
            if (waitedFor == tag)
                found.TrySetResult();
        }
        _waiting.RemoveAll(waiting => waiting.Tag == tag);
        return resumed;
    }
}
