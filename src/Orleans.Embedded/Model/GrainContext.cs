using System.Diagnostics.CodeAnalysis;

namespace Orleans.Runtime;

/// <summary>Anything that a grain call can be addressed to.</summary>
public interface IAddressable;

/// <summary>The name of a grain class.</summary>
public readonly record struct GrainType
{
    private readonly string _name;

    private GrainType(string name) => _name = name;

    public static GrainType Create(string value) => new(value);

    public override string ToString() => _name;
}

/// <summary>A grain's key.</summary>
public readonly record struct IdSpan
{
    private readonly string _key;

    private IdSpan(string key) => _key = key;

    public static IdSpan Create(string id) => new(id);

    public override string ToString() => _key;
}

/// <summary>A grain's identity: its class and its key.</summary>
public readonly record struct GrainId
{
    public GrainId(GrainType type, IdSpan key) => (Type, Key) = (type, key);

    public GrainType Type { get; }
    public IdSpan Key { get; }

    public override string ToString() => $"{Type}/{Key}";
}

/// <summary>Tells one activation of a grain from the next.</summary>
public readonly record struct ActivationId
{
    private readonly Guid _key;

    public ActivationId(Guid key) => _key = key;

    public override string ToString() => $"@{_key:N}";
}

/// <summary>One activation as the runtime sees it.</summary>
public interface IGrainContext
{
    GrainId GrainId { get; }
    ActivationId ActivationId { get; }
    object? GrainInstance { get; }

    /// <summary>Completes when the activation has ended, OnDeactivateAsync included.</summary>
    Task Deactivated { get; }

    /// <summary>Deactivates once the running requests have ended; returns at once. Cancelling abandons OnDeactivateAsync.</summary>
    void Deactivate(DeactivationReason deactivationReason, CancellationToken cancellationToken = default);
}

/// <summary>A timer whose ticks are turns of the grain that registered it; ends with the activation.</summary>
public interface IGrainTimer : IDisposable
{
    /// <summary>The next tick comes after <paramref name="dueTime"/>, further ones a period after the end of the last.</summary>
    void Change(TimeSpan dueTime, TimeSpan period);
}

/// <summary>When a grain timer ticks, and how its ticks stand to requests.</summary>
public readonly struct GrainTimerCreationOptions()
{
    [SetsRequiredMembers]
    public GrainTimerCreationOptions(TimeSpan dueTime, TimeSpan period) : this() => (DueTime, Period) = (dueTime, period);

    /// <summary>Time to the first tick; <see cref="Timeout.InfiniteTimeSpan"/> for never.</summary>
    public required TimeSpan DueTime { get; init; }

    /// <summary>Time from the end of a tick to the next; <see cref="Timeout.InfiniteTimeSpan"/> for one tick.</summary>
    public required TimeSpan Period { get; init; }

    /// <summary>Ticks interleave with requests even when the grain is not reentrant.</summary>
    public bool Interleave { get; init; }

    /// <summary>Ticks count as activity, so that idle collection stays away.</summary>
    public bool KeepAlive { get; init; }
}

/// <summary>An error of the runtime itself.</summary>
public class OrleansException : Exception
{
    public OrleansException() { }
    public OrleansException(string message) : base(message) { }
    public OrleansException(string message, Exception innerException) : base(message, innerException) { }
}

/// <summary>The runtime refused to deliver a request.</summary>
public class OrleansMessageRejectionException : OrleansException
{
    public OrleansMessageRejectionException() { }
    public OrleansMessageRejectionException(string message) : base(message) { }
    public OrleansMessageRejectionException(string message, Exception innerException) : base(message, innerException) { }
}

/// <summary>The silo is stopping or has stopped.</summary>
public sealed class SiloUnavailableException : OrleansMessageRejectionException
{
    public SiloUnavailableException() { }
    public SiloUnavailableException(string message) : base(message) { }
    public SiloUnavailableException(string message, Exception innerException) : base(message, innerException) { }
}
