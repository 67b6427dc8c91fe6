using System.Collections.Concurrent;
using System.Runtime.CompilerServices;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;
using Orleans.Configuration;

namespace Orleans.Runtime;

/// <summary>The activations of this process, and the way to them.</summary>
internal sealed class Silo : IClusterClient
{
    private static readonly TimeSpan s_second = TimeSpan.FromSeconds(1);
    private static readonly DeactivationReason s_shuttingDown = new(DeactivationReasonCode.ShuttingDown, "The silo stops.");

    private readonly ConcurrentDictionary<Type, GrainClass> _classes = new();
    private readonly ConcurrentDictionary<GrainId, Activation> _activations = new();
    private readonly ConditionalWeakTable<IGrainObserver, Activation> _observers = [];
    private readonly SiloMessagingOptions _messaging;
    private readonly List<ITimer> _timers = [];
    private volatile bool _stopping;

    public Silo(IServiceProvider services, TimeProvider time, ILoggerFactory loggers,
        IOptions<SiloMessagingOptions> messaging, IOptions<GrainCollectionOptions> collection)
    {
        (ServiceProvider, Time, _messaging, Collection) = (services, time, messaging.Value, collection.Value);
        Logger = loggers.CreateLogger("Orleans.Embedded");
        if (Collection.CollectionQuantum <= TimeSpan.Zero || Collection.CollectionAge <= Collection.CollectionQuantum)
        {
            throw new OrleansException($"CollectionAge is {Collection.CollectionAge} and CollectionQuantum "
                + $"{Collection.CollectionQuantum}; make the age longer than the quantum, and both longer than zero.");
        }
    }

    public IServiceProvider ServiceProvider { get; }
    public TimeProvider Time { get; }
    public ILogger Logger { get; }
    public GrainCollectionOptions Collection { get; }

    public TGrainInterface GetGrain<TGrainInterface>(string primaryKey) where TGrainInterface : IGrainWithStringKey
    {
        ArgumentException.ThrowIfNullOrWhiteSpace(primaryKey);
        GrainClass grainClass = _classes.GetOrAdd(typeof(TGrainInterface),
            type => new GrainClass(GrainClass.Implementing(type), Collection));
        var grainId = new GrainId(grainClass.GrainType, IdSpan.Create(primaryKey));
        return GrainReference.Create<TGrainInterface>(this, grainClass, grainId, null);
    }

    public TGrainObserverInterface CreateObjectReference<TGrainObserverInterface>(IGrainObserver obj)
        where TGrainObserverInterface : IGrainObserver
    {
        if (obj is GrainReference or IGrainBase)
            throw new ArgumentException("A grain, or a reference to one, needs no object reference.", nameof(obj));
        Activation target = _observers.GetValue(obj, key => new Activation(this, key));
        return GrainReference.Create<TGrainObserverInterface>(this, null, target.GrainId, target);
    }

    public void DeleteObjectReference<TGrainObserverInterface>(IGrainObserver obj)
        where TGrainObserverInterface : IGrainObserver
    {
        if ((object)obj is not GrainReference { Class: null, Target: { GrainInstance: IGrainObserver observer } target })
            throw new ArgumentException("This is no reference that CreateObjectReference made.", nameof(obj));
        _observers.Remove(observer);
        target.Deactivate(new(DeactivationReasonCode.ApplicationRequested, "The object reference was deleted."));
    }

    /// <summary>Delivers a request to the grain's activation, which it creates if there is none.</summary>
    public void Send(GrainReference reference, Request request, TimeSpan? responseTimeout)
    {
        TimeSpan timeout = responseTimeout ?? _messaging.ResponseTimeout;
        if (timeout != Timeout.InfiniteTimeSpan)
            request.Deadline = Time.GetTimestamp() + (long)(timeout.TotalSeconds * Time.TimestampFrequency);
        while (true)
        {
            Activation target = reference.Target ??= ActivationOf(reference.Class!, reference.GrainId);
            if (target.TryEnqueue(request))
                return;
            if (reference.Class is null)
                throw new OrleansMessageRejectionException($"The reference to {reference.GrainId} was deleted.");
            Forget(target);
            reference.Target = null;
        }
    }

    /// <summary>Passes a request on from an activation that ended before the request could start.</summary>
    public void Forward(Request request)
    {
        (GrainClass? grainClass, GrainId grainId) = (request.Target.Class, request.Target.GrainId);
        if (grainClass is null || request is GrainTimer || ++request.Forwards > _messaging.MaxForwardCount)
        {
            request.Fail(new OrleansMessageRejectionException($"{grainId} ended before it could take the request."));
            return;
        }
        try
        {
            for (Activation next = ActivationOf(grainClass, grainId); !next.TryEnqueue(request);
                next = ActivationOf(grainClass, grainId))
            {
                Forget(next);
            }
        }
        catch (Exception e)
        {
            request.Fail(e);
        }
    }

    /// <summary>Takes an ended activation off the directory.</summary>
    public void Forget(Activation activation) => _activations.TryRemove(new(activation.GrainId, activation));

    /// <summary>Starts looking for idle activations and for calls that wait too long.</summary>
    public void Start()
    {
        using AsyncFlowControl flow = ExecutionContext.IsFlowSuppressed() ? default : ExecutionContext.SuppressFlow();
        AddTimer(Collection.CollectionQuantum, CollectIdleActivations);
        TimeSpan quarter = _messaging.ResponseTimeout / 4;
        AddTimer(quarter <= TimeSpan.Zero || quarter > s_second ? s_second : quarter, ExpireRequests);

        void AddTimer(TimeSpan period, Action callback) =>
            _timers.Add(Time.CreateTimer(static callback => ((Action)callback!)(), callback, period, period));
    }

    /// <summary>Deactivates everything and admits nothing new. Returns when all has ended, or at the latest when
    /// <paramref name="cancellationToken"/> is cancelled or twice the DeactivationTimeout has gone.</summary>
    public async Task StopAsync(CancellationToken cancellationToken)
    {
        _stopping = true;
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        limit.CancelAfter(2 * Collection.DeactivationTimeout);
        try
        {
            while (!_activations.IsEmpty)
                await Task.WhenAll(_activations.Values.Select(EndOfActivation)).WaitAsync(limit.Token);
        }
        catch (OperationCanceledException)
        {
            foreach (GrainId grainId in _activations.Keys)
                Log.DeactivationAbandoned(Logger, grainId);
        }
        _timers.ForEach(timer => timer.Dispose());

        Task EndOfActivation(Activation activation)
        {
            activation.Deactivate(s_shuttingDown, limit.Token);
            return activation.Deactivated;
        }
    }

    private Activation ActivationOf(GrainClass grainClass, GrainId grainId)
    {
        while (true)
        {
            if (_activations.TryGetValue(grainId, out Activation? existing))
                return existing;
            if (_stopping)
                throw new SiloUnavailableException($"The silo is stopping; {grainId} is not activated any more.");
            var created = new Activation(this, grainClass, grainId);
            if (!_activations.TryAdd(grainId, created))
                continue;
            if (_stopping) // since it was asked above, so that StopAsync may have missed this one
                created.Deactivate(s_shuttingDown);
            return created;
        }
    }

    private void CollectIdleActivations()
    {
        DateTimeOffset now = Time.GetUtcNow();
        foreach (Activation activation in _activations.Values)
            activation.CollectIfIdle(now);
    }

    private void ExpireRequests()
    {
        long now = Time.GetTimestamp();
        foreach (Activation activation in _activations.Values.Concat(_observers.Select(pair => pair.Value)))
            activation.ExpireRequests(now);
    }
}
