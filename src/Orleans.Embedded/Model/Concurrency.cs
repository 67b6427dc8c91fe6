namespace Orleans.Concurrency;

/// <summary>Requests to the grain interleave at awaits; turns still never run at the same time.</summary>
[AttributeUsage(AttributeTargets.Class)]
public sealed class ReentrantAttribute : Attribute;

/// <summary>Requests for this interface method interleave with every other request.</summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class AlwaysInterleaveAttribute : Attribute;

/// <summary>Callers of this interface method wait for no response and learn of no error.</summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class OneWayAttribute : Attribute;

/// <summary>Wraps a value that nobody changes once it is sent: it is passed by reference within the process.</summary>
[GenerateSerializer, Immutable]
public readonly struct Immutable<T>(T value)
{
    [Id(0)]
    public readonly T Value = value;
}

public static class ImmutableExtensions
{
    /// <summary>Wraps <paramref name="value"/>, promising not to change it any more.</summary>
    public static Immutable<T> AsImmutable<T>(this T value) => new(value);
}
