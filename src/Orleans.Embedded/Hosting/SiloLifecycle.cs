using Microsoft.Extensions.Hosting;

namespace Orleans.Runtime;

/// <summary>The stages of the silo.</summary>
public interface ISiloLifecycle : ILifecycleObservable;

/// <summary>Runs once, when the silo starts.</summary>
public interface IStartupTask
{
    Task Execute(CancellationToken cancellationToken);
}

/// <summary>Starts and stops the silo, and whoever subscribed to its stages, with the host.</summary>
internal sealed class SiloLifecycle : ISiloLifecycle, IHostedService
{
    private readonly List<Subscription> _subscriptions = [];
    private int? _startedStage;

    public SiloLifecycle(Silo silo, IEnumerable<ILifecycleParticipant<ISiloLifecycle>> participants)
    {
        this.Subscribe(nameof(Silo), ServiceLifecycleStage.RuntimeServices, _ =>
        {
            silo.Start();
            return Task.CompletedTask;
        });
        this.Subscribe(nameof(Silo), ServiceLifecycleStage.GrainDeactivation, _ => Task.CompletedTask, silo.StopAsync);
        foreach (ILifecycleParticipant<ISiloLifecycle> participant in participants)
            participant.Participate(this);
    }

    public IDisposable Subscribe(string observerName, int stage, ILifecycleObserver observer)
    {
        var subscription = new Subscription(_subscriptions, stage, observer);
        _subscriptions.Add(subscription);
        return subscription;
    }

    /// <summary>Starts stage after stage. If one fails, those that were started are stopped again.</summary>
    public async Task StartAsync(CancellationToken cancellationToken)
    {
        try
        {
            foreach (IGrouping<int, Subscription> stage in Stages().OrderBy(stage => stage.Key))
            {
                cancellationToken.ThrowIfCancellationRequested();
                _startedStage = stage.Key;
                await Task.WhenAll(stage.Select(each => each.Observer.OnStart(cancellationToken)));
            }
        }
        catch
        {
            await StopAsync(cancellationToken); // a host does not stop what did not start
            throw;
        }
    }

    /// <summary>Stops what was started; an error of one stage is thrown after all have stopped.</summary>
    public async Task StopAsync(CancellationToken cancellationToken)
    {
        var errors = new List<Exception>();
        foreach (IGrouping<int, Subscription> stage in Stages().OrderByDescending(stage => stage.Key))
        {
            if (stage.Key > (_startedStage ?? int.MinValue))
                continue;
            try
            {
                await Task.WhenAll(stage.Select(each => each.Observer.OnStop(cancellationToken)));
            }
            catch (Exception e)
            {
                errors.Add(e);
            }
        }
        if (errors.Count > 0)
            throw new AggregateException(errors);
    }

    private IGrouping<int, Subscription>[] Stages() => [.. _subscriptions.GroupBy(each => each.Stage)];

    private sealed record Subscription(List<Subscription> All, int Stage, ILifecycleObserver Observer) : IDisposable
    {
        public void Dispose() => All.Remove(this);
    }
}
