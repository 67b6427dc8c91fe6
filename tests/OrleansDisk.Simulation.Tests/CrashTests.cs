namespace OrleansDisk.Simulation.Tests;

public sealed class CrashTests
{
    public static TheoryData<int> Seeds() => [.. Enumerable.Range(1, 16)];

    [Theory]
    [MemberData(nameof(Seeds))]
    public void A_crash_leaves_no_corruption_and_loses_nothing_that_was_flushed(int seed)
    {
        var simulation = new CrashSimulation(seed, statesPerBarrier: 4);
        simulation.Run(operationCount: 300);
        Assert.True(simulation.StateCount > 100, "the run met too few barriers to say anything");
    }
}
