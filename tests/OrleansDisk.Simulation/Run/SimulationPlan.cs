using OrleansDisk.Simulation.Host;
using OrleansDisk.Simulation.Workload;

namespace OrleansDisk.Simulation.Run;

/// <summary>Everything that a run does, but for the order in which continuations run, which its seed decides.</summary>
internal sealed record SimulationPlan
{
    private const int PlannedOperations = 160;

    public required int Seed { get; init; }

    public required Shape Shape { get; init; }

    public required IReadOnlyList<IOperation> Operations { get; init; }

    public IReadOnlyList<Fault> Faults { get; init; } = [];

    /// <summary>What a seed says.</summary>
    public static SimulationPlan FromSeed(int seed)
    {
        Random random = RandomOf(seed, "plan");
        Shape shape = Shape.Draw(random).OrWithSubclusters(RandomOf(seed, "subclusters"))
            .OrWithDataFile(RandomOf(seed, "data file")).OrEncrypted(RandomOf(seed, "encryption"))
            .OrWithLazyRefcounts(RandomOf(seed, "lazy refcounts"));
        if (shape.Fixture >= 0)
        {
            Shape fixture = SnapshotFixture.Get(shape.Fixture).Shape;
            shape = shape with
            {
                Version = fixture.Version,
                ClusterBits = fixture.ClusterBits,
                RefcountOrder = fixture.RefcountOrder,
                SectorCount = fixture.SectorCount,
                Encryption = fixture.Encryption,
            };
        }
        shape = shape.OrKeepingDiscarded(RandomOf(seed, "kept places"));
        int count = shape.ClusterBits > 16 ? PlannedOperations / 10 : PlannedOperations;
        return new SimulationPlan
        {
            Seed = seed,
            Shape = shape,
            Operations = DrawOperations(new OperationDraw(random, shape), count),
            Faults = random.Next(3) == 0 ? [new Fault(FileEvents.Any, 1 + random.Next(600), (FaultKind)random.Next(4))] : [],
        };
    }

    public static IReadOnlyList<IOperation> DrawOperations(OperationDraw draw, int count) =>
        [.. Enumerable.Range(0, count).Select(_ => OperationCatalog.Draw(draw))];

    /// <summary>A source of chance for one purpose, so that what one purpose draws changes nothing for another.</summary>
    public static Random RandomOf(int seed, string purpose)
    {
        uint hash = 2166136261;
        foreach (char c in purpose)
            hash = (hash ^ c) * 16777619;
        return new Random((int)(hash ^ ((uint)seed * 2654435761)));
    }
}
