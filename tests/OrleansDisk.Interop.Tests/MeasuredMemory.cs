namespace OrleansDisk.Interop.Tests;

/// <summary>Tests that measure what the process allocates: nothing else runs beside them.</summary>
[CollectionDefinition(Name, DisableParallelization = true)]
public sealed class MeasuredMemory
{
    public const string Name = "Measured memory";
}
