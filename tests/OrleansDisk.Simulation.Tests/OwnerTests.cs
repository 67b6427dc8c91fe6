using OrleansDisk.Simulation.Run;

namespace OrleansDisk.Simulation.Tests;

/// <summary>One image file, several activations of the engine.</summary>
public sealed class OwnerTests
{
    private const int SeedCount = 60;

    /// <summary>Guards: <c>ImageLock.Acquire</c> as the simulated host has it; <c>Qcow2Image.CloseOnceAsync</c> waits for what runs in the background.</summary>
    [Fact]
    public void Once_a_later_owner_has_written_no_earlier_one_does_and_nothing_is_lost_between_them()
    {
        int tenures = 0;
        int refusals = 0;
        for (int seed = 0; seed < SeedCount; seed++)
        {
            var run = new OwnersRun(seed, keepsLocks: true);
            run.Run();
            tenures += run.TenureCount;
            refusals += run.RefusalCount;
        }
        Assert.True(tenures > SeedCount * 4 && refusals > SeedCount, $"{tenures} tenures, {refusals} refusals: the owners hardly met");
    }

    [Fact]
    public void Without_locks_owners_get_into_each_others_way_and_the_simulation_sees_it() =>
        Assert.Contains(Enumerable.Range(0, SeedCount), seed =>
        {
            try
            {
                new OwnersRun(seed, keepsLocks: false).Run();
                return false;
            }
            catch (SimulationFailure)
            {
                return true;
            }
        });
}
