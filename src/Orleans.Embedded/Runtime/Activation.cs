using Microsoft.Extensions.DependencyInjection;

namespace Orleans.Runtime;

/// <summary>One activation of a grain (or one observer): its instance, its requests, its life.</summary>
internal sealed class Activation : IGrainContext
{
    private enum Stage { Created, Activating, Active, Deactivating, Ended }

    private readonly Lock _lock = new();
    private readonly ActivationScheduler _scheduler = new();
    private readonly TaskCompletionSource _deactivated = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly List<GrainTimer> _timers = [];
    private readonly AsyncServiceScope _scope;
    private RequestList _waiting;
    private RequestList _running;
    private Request? _blocking; // the running request that others wait for
    private Stage _stage;
    private bool _activated;
    private (DeactivationReason Reason, CancellationToken Abandon)? _deactivation;
    private DateTimeOffset _idleSince;
    private DateTimeOffset _keptUntil = DateTimeOffset.MinValue;

    /// <summary>An activation of a grain. The first request activates it, so that a failure finds whom to tell.</summary>
    public Activation(Silo silo, GrainClass grainClass, GrainId grainId)
    {
        (Silo, Class, GrainId) = (silo, grainClass, grainId);
        _scope = silo.ServiceProvider.CreateAsyncScope();
    }

    /// <summary>The target of an observer's reference.</summary>
    public Activation(Silo silo, IGrainObserver observer)
    {
        (Silo, GrainInstance, _stage) = (silo, observer, Stage.Active);
        GrainId = new GrainId(GrainType.Create(observer.GetType().FullName!), IdSpan.Create(ActivationId.ToString()));
    }

    /// <summary>The activation whose instance this thread is constructing.</summary>
    [field: ThreadStatic]
    public static Activation? UnderConstruction { get; private set; }

    public Silo Silo { get; }

    /// <summary>The grain's class; null for an observer.</summary>
    public GrainClass? Class { get; }

    public GrainId GrainId { get; }
    public ActivationId ActivationId { get; } = new(Guid.NewGuid());
    public object? GrainInstance { get; private set; }
    public Task Deactivated => _deactivated.Task;
    public IServiceProvider Services => _scope.ServiceProvider;

    /// <exception cref="InvalidOperationException">The grain was made by hand.</exception>
    public static Activation Of(IGrainBase grain) => grain.GrainContext as Activation
        ?? throw new InvalidOperationException($"This {grain.GetType()} was not made by the grain runtime.");

    /// <summary>Takes a request; false once the activation has ended, when another must take it.</summary>
    public bool TryEnqueue(Request request)
    {
        lock (_lock)
        {
            if (_stage == Stage.Ended)
                return false;
            request.Target = this;
            if (MayStart(request))
                Start(request);
            else
                _waiting.Add(request);
            if (_stage == Stage.Created)
            {
                _stage = Stage.Activating;
                RunTurn(ActivateAsync);
            }
            return true;
        }
    }

    /// <summary>Called by a running request when it has ended.</summary>
    public void End(Request request)
    {
        lock (_lock)
        {
            _running.Remove(request);
            if (_blocking == request)
                _blocking = null;
            if (request.KeepsAlive)
                _idleSince = Silo.Time.GetUtcNow();
            StartWaiting();
        }
    }

    public void Deactivate(DeactivationReason deactivationReason, CancellationToken cancellationToken = default)
    {
        lock (_lock)
        {
            if (_stage == Stage.Ended)
                return;
            _deactivation ??= (deactivationReason, cancellationToken);
            StartWaiting();
        }
    }

    /// <summary>Deactivates if idle for longer than the collection age.</summary>
    public void CollectIfIdle(DateTimeOffset now)
    {
        lock (_lock)
        {
            if (_stage != Stage.Active || _running.First is not null || now < _keptUntil || now - _idleSince < Class!.CollectionAge)
                return;
            Deactivate(new(DeactivationReasonCode.ActivationIdle, $"Idle for {Class.CollectionAge}."));
        }
    }

    public void DelayDeactivation(TimeSpan time)
    {
        DateTimeOffset now = Silo.Time.GetUtcNow();
        lock (_lock)
        {
            _keptUntil = time == Timeout.InfiniteTimeSpan || time >= DateTimeOffset.MaxValue - now
                ? DateTimeOffset.MaxValue
                : time <= TimeSpan.Zero ? DateTimeOffset.MinValue : now + time;
        }
    }

    /// <summary>Fails the calls whose deadline has passed; those that wait are forgotten, those that run go on.</summary>
    public void ExpireRequests(long now)
    {
        lock (_lock)
        {
            for (Request? request = _running.First; request is not null; request = request.Next)
            {
                if (request.Deadline <= now)
                    request.Fail(new TimeoutException($"{GrainId} did not answer in time; it may still be at it."));
            }
            for (Request? request = _waiting.First, next; request is not null; request = next)
            {
                next = request.Next;
                if (request.Deadline > now)
                    continue;
                _waiting.Remove(request);
                request.Fail(new TimeoutException($"{GrainId} did not answer in time; it never began."));
            }
        }
    }

    public IGrainTimer AddTimer(Func<CancellationToken, Task> callback, GrainTimerCreationOptions options)
    {
        var timer = new GrainTimer(this, callback, options);
        lock (_lock)
        {
            if (_stage < Stage.Deactivating)
                _timers.Add(timer);
            else
                timer.Dispose();
        }
        return timer;
    }

    public void Remove(GrainTimer timer)
    {
        lock (_lock)
            _timers.Remove(timer);
    }

    private bool MayStart(Request request) => _stage == Stage.Active && _deactivation is null
        && (_blocking is null || request.Interleaves || Class is { IsReentrant: true });

    private void Start(Request request)
    {
        _running.Add(request);
        if (!request.Interleaves)
            _blocking ??= request;
        _scheduler.Start(request);
    }

    // Called with the lock held whenever something may start: waiting requests, or the deactivation they make way for.
    // Requests that interleave never wait in an active grain, so after activation the first that may not start ends it.
    private void StartWaiting(bool all = false)
    {
        for (Request? request = _waiting.First, next; request is not null; request = next)
        {
            next = request.Next;
            if (MayStart(request))
            {
                _waiting.Remove(request);
                Start(request);
            }
            else if (!all)
            {
                break;
            }
        }
        if (_deactivation is not null && _stage == Stage.Active && _running.First is null)
        {
            _stage = Stage.Deactivating;
            RunTurn(DeactivateAsync);
        }
    }

    private void RunTurn(Func<Task> turn)
    {
        using AsyncFlowControl flow = ExecutionContext.IsFlowSuppressed() ? default : ExecutionContext.SuppressFlow();
        _ = Task.Factory.StartNew(turn, CancellationToken.None, TaskCreationOptions.None, _scheduler);
    }

    private async Task ActivateAsync()
    {
        try
        {
            UnderConstruction = this;
            try
            {
                GrainInstance = Class!.CreateInstance(Services);
            }
            finally
            {
                UnderConstruction = null;
            }
            using var timeout = new CancellationTokenSource(Silo.Collection.ActivationTimeout);
            await ((IGrainBase)GrainInstance).OnActivateAsync(timeout.Token).WaitAsync(timeout.Token);
        }
        catch (Exception e)
        {
            Log.ActivationFailed(Silo.Logger, e, GrainId);
            await EndAsync(e);
            return;
        }
        lock (_lock)
        {
            _activated = true;
            _stage = Stage.Active;
            _idleSince = Silo.Time.GetUtcNow();
            StartWaiting(all: true);
        }
    }

    private async Task DeactivateAsync()
    {
        DisposeTimers();
        (DeactivationReason reason, CancellationToken abandon) = _deactivation!.Value;
        try
        {
            using var timeout = CancellationTokenSource.CreateLinkedTokenSource(abandon);
            timeout.CancelAfter(Silo.Collection.DeactivationTimeout);
            if (GrainInstance is IGrainBase grain && _activated)
                await grain.OnDeactivateAsync(reason, timeout.Token).WaitAsync(timeout.Token);
        }
        catch (Exception e)
        {
            Log.DeactivationFailed(Silo.Logger, e, GrainId);
        }
        await EndAsync(null);
    }

    private void DisposeTimers()
    {
        GrainTimer[] timers;
        lock (_lock)
            timers = [.. _timers];
        foreach (GrainTimer timer in timers)
            timer.Dispose();
    }

    // The last turn: whoever waits here goes to the next activation, or learns why this one failed.
    private async Task EndAsync(Exception? failure)
    {
        DisposeTimers();
        try
        {
            if (_activated || failure is not null)
            {
                if (GrainInstance is IAsyncDisposable disposable)
                    await disposable.DisposeAsync();
                else
                    (GrainInstance as IDisposable)?.Dispose();
                await _scope.DisposeAsync();
            }
        }
        catch (Exception e)
        {
            Log.DeactivationFailed(Silo.Logger, e, GrainId);
        }
        Request? request;
        lock (_lock)
        {
            _stage = Stage.Ended;
            request = _waiting.First;
            _waiting = default;
        }
        Silo.Forget(this);
        _deactivated.TrySetResult();
        for (Request? next; request is not null; request = next)
        {
            next = request.Next;
            if (failure is not null)
                request.Fail(failure);
            else
                Silo.Forward(request);
        }
    }
}
