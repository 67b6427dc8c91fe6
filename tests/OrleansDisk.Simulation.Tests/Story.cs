using OrleansDisk.Simulation.Host;
using OrleansDisk.Simulation.Run;
using OrleansDisk.Simulation.Workload;

namespace OrleansDisk.Simulation.Tests;

/// <summary>A load that is told operation by operation, under which every barrier's crash states are looked at.</summary>
internal static class Story
{
    private static readonly SimulationLimits s_limits = new() { MaxStatesPerBarrier = 256, QemuOneIn = 0 };

    public static IReadOnlyList<IOperation> Draw(OperationDraw draw, int count, params Func<OperationDraw, IOperation>[] kinds) =>
        [.. Enumerable.Range(0, count).Select(_ => kinds[draw.Random.Next(kinds.Length)](draw))];

    public static Fault[] NoFaults(int _) => [];

    /// <summary>Runs a story with several seeds; it is told each time in another order.</summary>
    public static void Tell(Shape shape, int seedCount, Func<int, Fault[]> faults,
        Func<OperationDraw, IReadOnlyList<IOperation>> story, string? reaches = null, bool mustStop = false)
    {
        bool isReached = reaches is null;
        for (int seed = 0; seed < seedCount; seed++)
        {
            var plan = new SimulationPlan
            {
                Seed = seed,
                Shape = shape,
                Operations = story(new OperationDraw(new Random(seed), shape)),
                Faults = faults(seed),
            };
            SimulationResult result = new SimulationRun(plan, s_limits).Run();
            isReached |= result.Events.ContainsKey(reaches ?? "");
            Assert.True(!mustStop || result.Struck is null || result.HasStopped, $"seed {seed}: the image goes on after {result.Struck}");
        }
        Assert.True(isReached, $"the story never comes to: {reaches}");
    }
}
