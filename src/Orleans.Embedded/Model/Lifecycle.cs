namespace Orleans;

/// <summary>Something with stages that others start and stop with.</summary>
public interface ILifecycleObservable
{
    /// <summary>Stages start in rising order and stop in falling order. Disposing the result ends the subscription.</summary>
    IDisposable Subscribe(string observerName, int stage, ILifecycleObserver observer);
}

/// <summary>What happens when a stage starts and stops.</summary>
public interface ILifecycleObserver
{
    Task OnStart(CancellationToken cancellationToken = default);
    Task OnStop(CancellationToken cancellationToken = default);
}

/// <summary>Registered as a service, it is asked to subscribe before the silo starts.</summary>
public interface ILifecycleParticipant<TLifecycleObservable> where TLifecycleObservable : ILifecycleObservable
{
    void Participate(TLifecycleObservable lifecycle);
}

/// <summary>The stages of a silo. Grains are deactivated between the stops of Active and of ApplicationServices.</summary>
public static class ServiceLifecycleStage
{
    public const int First = int.MinValue;
    public const int RuntimeInitialize = 2000;
    public const int RuntimeServices = 4000;
    public const int RuntimeStorageServices = 6000;
    public const int RuntimeGrainServices = 8000;
    public const int AfterRuntimeGrainServices = 8100;
    public const int ApplicationServices = 10000;
    public const int GrainDeactivation = Active - 2;
    public const int BecomeActive = Active - 1;
    public const int Active = 20000;
    public const int Last = int.MaxValue;
}

public static class LifecycleExtensions
{
    public static IDisposable Subscribe(this ILifecycleObservable observable, string observerName, int stage,
        Func<CancellationToken, Task> onStart, Func<CancellationToken, Task>? onStop) =>
        observable.Subscribe(observerName, stage, new Callbacks(onStart, onStop));

    public static IDisposable Subscribe(this ILifecycleObservable observable, string observerName, int stage,
        Func<CancellationToken, Task> onStart) => observable.Subscribe(observerName, stage, onStart, null);

    private sealed class Callbacks(Func<CancellationToken, Task> onStart, Func<CancellationToken, Task>? onStop)
        : ILifecycleObserver
    {
        public Task OnStart(CancellationToken cancellationToken = default) => onStart(cancellationToken);
        public Task OnStop(CancellationToken cancellationToken = default) =>
            onStop?.Invoke(cancellationToken) ?? Task.CompletedTask;
    }
}
