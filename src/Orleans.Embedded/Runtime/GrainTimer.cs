namespace Orleans.Runtime;

/// <summary>A timer of a grain. It is itself the request that ticks, since one tick ends before the next begins.</summary>
internal sealed class GrainTimer : Request, IGrainTimer
{
    private readonly Lock _lock = new();
    private readonly CancellationTokenSource _disposed = new();
    private readonly Func<CancellationToken, Task> _callback;
    private readonly CancellationToken _token;
    private readonly ITimer _timer;
    private TimeSpan _period;
    private TimeSpan? _changedDueTime;
    private bool _ticking;
    private bool _ended;

    public GrainTimer(Activation activation, Func<CancellationToken, Task> callback, GrainTimerCreationOptions options)
    {
        (Target, _callback, Interleaves, KeepsAlive) = (activation, callback, options.Interleave, options.KeepAlive);
        _token = _disposed.Token;
        using AsyncFlowControl flow = ExecutionContext.IsFlowSuppressed() ? default : ExecutionContext.SuppressFlow();
        _timer = activation.Silo.Time.CreateTimer(static timer => ((GrainTimer)timer!).OnDue(), this,
            Timeout.InfiniteTimeSpan, Timeout.InfiniteTimeSpan);
        Change(options.DueTime, options.Period);
    }

    public void Change(TimeSpan dueTime, TimeSpan period)
    {
        lock (_lock)
        {
            _period = period;
            if (_ticking)
                _changedDueTime = dueTime;
            else
                _timer.Change(dueTime, Timeout.InfiniteTimeSpan);
        }
    }

    private void OnDue()
    {
        lock (_lock)
            _ticking = true;
        Target.TryEnqueue(this);
    }

    public override async void Start()
    {
        try
        {
            if (!_token.IsCancellationRequested)
                await _callback(_token);
        }
        catch (Exception e)
        {
            Log.TimerFailed(Target.Silo.Logger, e, Target.GrainId);
        }
        Target.End(this);
        lock (_lock)
        {
            _ticking = false;
            _timer.Change(_changedDueTime ?? _period, Timeout.InfiniteTimeSpan); // has no effect on a disposed timer
            _changedDueTime = null;
        }
    }

    // A tick that its activation did not live to see is dropped.
    public override void Fail(Exception exception) { }

    public void Dispose()
    {
        if (Interlocked.Exchange(ref _ended, true))
            return;
        _disposed.Cancel();
        _disposed.Dispose();
        _timer.Dispose();
        Target.Remove(this);
    }
}
