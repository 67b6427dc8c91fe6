namespace OrleansDisk.Simulation.Workload;

/// <summary>One operation of a run. A new kind is a class with this interface and a line in <see cref="OperationCatalog"/>.</summary>
internal interface IOperation
{
    Timing Timing => Timing.Beside;

    /// <summary>Does it, and holds what comes out against the model.</summary>
    /// <exception cref="SimulationFailure">Something that must hold does not.</exception>
    Task RunAsync(World world);
}

/// <summary>What else may be under way.</summary>
internal enum Timing
{
    /// <summary>It runs beside others.</summary>
    Beside,

    /// <summary>It waits for all before it, and all after it wait for it.</summary>
    Alone,

    /// <summary>It begins while others run, which it may end; all after it wait for it.</summary>
    Interrupting,
}

/// <summary>Draws the parameters of operations.</summary>
internal sealed class OperationDraw(Random random, Shape shape)
{
    public Random Random => random;

    public Shape Shape => shape;

    public bool OneIn(int count) => random.Next(count) == 0;

    /// <summary>A range of the disk: of any alignment, from a byte to many clusters, often where others were.</summary>
    public (long Offset, int Bytes) Range()
    {
        // The disk may have grown by then; a range that ends behind it is cut.
        long disk = shape.SectorCount * (OneIn(4) ? 1024L : 512L);
        int unit = random.Next(4) switch { 0 => shape.ClusterBytes, 1 => 1, _ => 512 };
        long start = OneIn(2) ? random.NextInt64(disk) : random.NextInt64(Math.Min(disk, 4L * shape.ClusterBytes));
        long longest = random.Next(5) switch
        {
            0 => 24L * shape.ClusterBytes,
            1 => 3L * shape.ClusterBytes,
            _ => Math.Max(1024, shape.ClusterBytes / 2L),
        };
        longest = Math.Min(longest, 8L << 20);
        start = start / unit * unit;
        long bytes = Math.Max(unit, random.NextInt64(longest) / unit * unit);
        return (start, (int)Math.Min(bytes, disk - start));
    }
}
