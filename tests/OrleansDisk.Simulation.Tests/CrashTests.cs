using System.Globalization;
using OrleansDisk.Simulation.Run;
using Xunit.Abstractions;

namespace OrleansDisk.Simulation.Tests;

/// <summary>The random runs of every test run: fixed seeds, and a range that is another one every day.</summary>
public sealed class CrashTests(ITestOutputHelper output)
{
    private const int FixedSeeds = 100;
    private const int SeedsOfTheDay = 60;
    private const int SeedsPerDay = 1000;
    private const long LeastStates = 100_000;

    [Fact]
    public void A_crash_leaves_no_corruption_and_loses_nothing_that_was_flushed() => Run(1, FixedSeeds);

    [Fact]
    public void A_crash_does_no_harm_with_the_seeds_of_the_day_either()
    {
        int day = (int)(DateTime.UtcNow - DateTime.UnixEpoch).TotalDays;
        Run(day * SeedsPerDay, SeedsOfTheDay);
    }

    [Fact]
    public void A_seed_is_the_same_run_every_time()
    {
        var plan = SimulationPlan.FromSeed(7);
        var limits = new SimulationLimits { QemuOneIn = 0 };
        Assert.Equal(new SimulationRun(plan, limits).Run().TraceHash, new SimulationRun(plan, limits).Run().TraceHash);
    }

    private void Run(int firstSeed, int count)
    {
        var limits = new SimulationLimits();
        var run = new SeedRun(firstSeed, limits);
        run.Run(Environment.ProcessorCount, seed => seed < firstSeed + count);
        if (run.Failed is { } failed)
            Assert.Fail(FailureReport.Describe(failed.Plan, limits, failed.Failure));
        output.WriteLine(string.Create(CultureInfo.InvariantCulture,
            $"seeds {firstSeed} to {firstSeed + count - 1}: {run.Counts.States} crash states at {run.Counts.Barriers} barriers, {run.Counts.Examined} with metadata of their own"));
        Assert.True(run.Counts.States > LeastStates, $"only {run.Counts.States} states were looked at");
    }
}
