using System.Collections.Concurrent;
using OrleansDisk.Qcow2;
using OrleansDisk.Simulation.Host;
using OrleansDisk.Simulation.Run;
using OrleansDisk.Simulation.Workload;
using OrleansDisk.Simulation.Workload.Operations;

namespace OrleansDisk.Simulation.Tests;

/// <summary>Every event of a load fails once: the nth time that it happens, for every n that the load comes to.</summary>
public sealed class FaultTests
{
    private const int OperationCount = 24;
    private const int LeastFaults = 100;
    private static readonly SimulationLimits s_limits = new() { MaxStatesPerBarrier = 16, RecoverOneIn = 0, QemuOneIn = 0 };

    /// <summary>Images on which the events happen that a small new one never comes to.</summary>
    public static TheoryData<string> Loads() => [.. s_shapes.Keys];

    private static readonly Dictionary<string, Shape> s_shapes = new()
    {
        ["an overlay of two layers"] = new Shape { ClusterBits = 11, SectorCount = 128, BackingDepth = 2, BackingSectorCount = 150, MaxInFlight = 1 },
        ["an image with snapshots"] = SnapshotFixture.Get(0).Shape with { MaxInFlight = 1 },
        ["an image whose refcount table is full"] = new Shape { RefcountOrder = 6, UsedClusterCount = 4080, SectorCount = 96, MaxInFlight = 1 },
        ["an image of version 2 with several requests at once"] = new Shape { Version = 2, ClusterBits = 10, SectorCount = 160, UsedClusterCount = 505, MaxInFlight = 5 },
        ["an overlay with subclusters in an external data file"] = new Shape
        {
            ClusterBits = 14,
            HasSubclusters = true,
            DataFile = DataFileKind.Plain,
            SectorCount = 160,
            BackingDepth = 1,
            BackingSectorCount = 150,
            MaxInFlight = 1,
        },
        ["an image with a raw data file"] = new Shape { ClusterBits = 11, SectorCount = 128, DataFile = DataFileKind.Raw, MaxInFlight = 1 },
    };

    [Theory]
    [MemberData(nameof(Loads))]
    public void Whatever_fails_once_loses_nothing_and_stops_the_image_just_when_it_must(string load)
    {
        SimulationPlan plan = Plan(s_shapes[load]);
        IReadOnlyDictionary<string, int> events = new SimulationRun(plan, s_limits).Run().Events;
        Fault[] faults = [.. from name in events.Keys
            where name != FileEvents.Any
            from nth in Enumerable.Range(1, events[name])
            from kind in KindsOf(name)
            select new Fault(name, nth, kind)];
        var failures = new ConcurrentBag<string>();
        Parallel.ForEach(faults, fault =>
        {
            if (RunWith(plan, fault) is { } failure)
                failures.Add($"{fault}: {failure}");
        });
        Assert.True(faults.Length > LeastFaults, $"only {faults.Length} faults: the load reaches too little");
        Assert.True(failures.IsEmpty, string.Join('\n', failures.Order().Take(20)));
    }

    [Fact]
    public void The_loads_reach_every_event_of_the_table()
    {
        var reached = new HashSet<string>();
        foreach (Shape shape in s_shapes.Values)
            reached.UnionWith(new SimulationRun(Plan(shape), s_limits).Run().Events.Keys);
        // Nothing writes while an image opens.
        string[] expected = [.. typeof(FileEvents).GetFields().Select(field => (string)field.GetRawConstantValue()!)];
        Assert.Empty(expected.Except(reached).Except([FileEvents.OpenWrite]));
    }

    private static SimulationPlan Plan(Shape shape)
    {
        var draw = new OperationDraw(new Random(5), shape);
        return new SimulationPlan
        {
            Seed = 5,
            Shape = shape,
            Operations =
            [
                new WriteOperation(0, 6000, Fua: false),
                new SessionReadOperation(0, 2000),
                new SessionWriteOperation(512, 2000),
                new WriteOperation(8192, 100, Fua: false),
                new GrowOperation(shape.ClusterSectorCount * 70, Preallocation.Off),
                new WriteOperation(shape.SectorCount * 512L, 3000, Fua: true),
                .. SimulationPlan.DrawOperations(draw, shape.UsedClusterCount > 1000 ? OperationCount / 4 : OperationCount),
                new WriteOperation(2048, 30_000, Fua: false),
                new FlushOperation(),
                new DiscardOperation(0, 20_000, Fua: true),
                new CompressedWriteOperation(0),
                new CreateSnapshotOperation("third"),
                new WriteOperation(2048, 3000, Fua: false),
                new ApplySnapshotOperation("third"),
                new DeleteSnapshotOperation("third"),
                new FlushOperation(),
            ],
        };
    }

    private static FaultKind[] KindsOf(string name)
    {
        bool writes = name.EndsWith("write", StringComparison.Ordinal) || name.EndsWith("alloc", StringComparison.Ordinal)
            || name is FileEvents.ReftableGrow;
        return !writes ? [FaultKind.InputOutput]
            : FileEvents.IsMetadata(name) ? [FaultKind.InputOutput, FaultKind.ShortWrite]
            : [FaultKind.InputOutput, FaultKind.NoSpace, FaultKind.ShortWrite];
    }

    private static string? RunWith(SimulationPlan plan, Fault fault)
    {
        try
        {
            SimulationResult result = new SimulationRun(plan with { Faults = [fault] }, s_limits).Run();
            if (result.Struck is not { } struck || FileEvents.MustStop(struck) is not { } mustStop || mustStop == result.HasStopped)
                return null;
            return mustStop ? "the image goes on" : "the image stops";
        }
        catch (Exception e)
        {
            return e is SimulationFailure ? e.Message : e.ToString();
        }
    }
}
