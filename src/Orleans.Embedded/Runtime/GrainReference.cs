using System.Reflection;

namespace Orleans.Runtime;

#pragma warning disable CA1852 // DispatchProxy derives from it
/// <summary>The stand-in for a grain: implements the grain's interface and turns calls into requests.</summary>
internal class GrainReference : DispatchProxy
{
    public Silo Silo { get; private set; } = null!;
    public GrainId GrainId { get; private set; }

    /// <summary>The grain's class; null for an observer.</summary>
    public GrainClass? Class { get; private set; }

    /// <summary>The activation of the last call, if any: saves looking it up while it lives.</summary>
    public Activation? Target { get; set; }

    public static TInterface Create<TInterface>(Silo silo, GrainClass? grainClass, GrainId grainId, Activation? target)
    {
        TInterface proxy = DispatchProxy.Create<TInterface, GrainReference>();
        var reference = (GrainReference)(object)proxy!;
        (reference.Silo, reference.Class, reference.GrainId, reference.Target) = (silo, grainClass, grainId, target);
        return proxy;
    }

    public override bool Equals(object? obj) => obj is GrainReference other && other.GrainId == GrainId;
    public override int GetHashCode() => GrainId.GetHashCode();
    public override string ToString() => GrainId.ToString();

    protected override object? Invoke(MethodInfo? targetMethod, object?[]? args) =>
        GrainMethod.Of(targetMethod!).Call(this, args ?? []);
}
