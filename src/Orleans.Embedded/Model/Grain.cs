using Orleans.Runtime;

namespace Orleans;

/// <summary>Marks grain interfaces.</summary>
public interface IGrain : IAddressable;

/// <summary>Marks grain interfaces whose grains are named by a string.</summary>
public interface IGrainWithStringKey : IGrain;

/// <summary>Marks interfaces of objects that grains call back. The holder keeps such an object alive.</summary>
public interface IGrainObserver : IAddressable;

/// <summary>What the runtime asks of a grain class.</summary>
public interface IGrainBase
{
    IGrainContext GrainContext { get; }

    Task OnActivateAsync(CancellationToken token) => Task.CompletedTask;

    Task OnDeactivateAsync(DeactivationReason reason, CancellationToken token) => Task.CompletedTask;
}

/// <summary>Makes references to grains; getting one creates nothing, the first call activates the grain.</summary>
public interface IGrainFactory
{
    /// <exception cref="ArgumentException"><paramref name="primaryKey"/> is empty or white space, or no grain class
    /// implements the interface, or more than one does.</exception>
    TGrainInterface GetGrain<TGrainInterface>(string primaryKey) where TGrainInterface : IGrainWithStringKey;

    /// <summary>A reference through which grains call <paramref name="obj"/>, one call at a time.</summary>
    TGrainObserverInterface CreateObjectReference<TGrainObserverInterface>(IGrainObserver obj)
        where TGrainObserverInterface : IGrainObserver;

    /// <summary>Ends a reference of CreateObjectReference: calls through it fail from now on.</summary>
    void DeleteObjectReference<TGrainObserverInterface>(IGrainObserver obj) where TGrainObserverInterface : IGrainObserver;
}

/// <summary>The entry to grains from outside of them.</summary>
public interface IClusterClient : IGrainFactory
{
    IServiceProvider ServiceProvider { get; }
}

/// <summary>The class that grains derive from. Its code runs on the activation's own scheduler, one turn at a time.</summary>
public abstract class Grain : IGrainBase, IAddressable
{
    protected Grain() => GrainContext = Activation.UnderConstruction!;

    public IGrainContext GrainContext { get; }

    /// <summary>The grain's class and key, as logs show them.</summary>
    public string IdentityString => GrainContext.GrainId.ToString();

    protected IGrainFactory GrainFactory => Own.Silo;

    protected internal IServiceProvider ServiceProvider => Own.Services;

    private Activation Own => Activation.Of(this);

    /// <summary>Runs before the first call. What it throws reaches the callers; the next call tries anew.</summary>
    public virtual Task OnActivateAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    /// <summary>Runs after the last call. It is abandoned when <paramref name="cancellationToken"/> is cancelled
    /// (GrainCollectionOptions.DeactivationTimeout); what it throws is logged.</summary>
    public virtual Task OnDeactivateAsync(DeactivationReason reason, CancellationToken cancellationToken) =>
        Task.CompletedTask;

    /// <summary>Deactivates this activation once its running requests have ended; later calls start a new one.</summary>
    protected void DeactivateOnIdle() => ((IGrainBase)this).DeactivateOnIdle();

    /// <summary>Keeps idle collection away for that long; zero or less takes an earlier wish back.</summary>
    protected void DelayDeactivation(TimeSpan timeSpan) => Own.DelayDeactivation(timeSpan);
}

public static class GrainExtensions
{
    /// <summary>The key of a grain or of a reference to one.</summary>
    public static string GetPrimaryKeyString(this IAddressable grain) => grain.GetGrainId().Key.ToString();

    /// <summary>A reference to the grain, or to what a reference names, by another of its interfaces.
    /// A grain passes this, not itself, to other grains.</summary>
    public static TGrainInterface AsReference<TGrainInterface>(this IAddressable grain)
    {
        (Silo silo, GrainClass? grainClass, Activation? target) = grain is GrainReference reference
            ? (reference.Silo, reference.Class, reference.Target)
            : (Activation.Of((IGrainBase)grain).Silo, Activation.Of((IGrainBase)grain).Class, null);
        return GrainReference.Create<TGrainInterface>(silo, grainClass, grain.GetGrainId(), target);
    }

    /// <exception cref="ArgumentException">The object is no grain and no reference to one.</exception>
    public static GrainId GetGrainId(this IAddressable grain) => grain switch
    {
        GrainReference reference => reference.GrainId,
        IGrainBase instance => instance.GrainContext.GrainId,
        _ => throw new ArgumentException($"{grain.GetType()} is no grain and no grain reference.", nameof(grain)),
    };
}

/// <summary>Why an activation ends.</summary>
public enum DeactivationReasonCode : byte
{
    None, ShuttingDown, ActivationFailed, DirectoryFailure, ActivationIdle, ActivationUnresponsive, DuplicateActivation,
    IncompatibleRequest, ApplicationError, ApplicationRequested, Migrating, RuntimeRequested, HighMemoryPressure,
}

/// <summary>Why an activation ends, with words and perhaps the exception behind it.</summary>
public readonly struct DeactivationReason(DeactivationReasonCode code, Exception? exception, string text)
{
    public DeactivationReason(DeactivationReasonCode code, string text) : this(code, null, text) { }

    public DeactivationReasonCode ReasonCode { get; } = code;
    public Exception? Exception { get; } = exception;
    public string Description { get; } = text;

    public override string ToString() =>
        Exception is null ? $"{ReasonCode}: {Description}" : $"{ReasonCode}: {Description}. Exception: {Exception}";
}
