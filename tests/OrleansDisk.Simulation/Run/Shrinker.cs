using System.Diagnostics;
using OrleansDisk.Simulation.Workload;

namespace OrleansDisk.Simulation.Run;

/// <summary>
/// Makes a failing run small: it takes operations away for as long as what is left fails, too, with the same seed and
/// the same image.
/// </summary>
internal static class Shrinker
{
    /// <summary>The numbers of the operations that a failure needs, and how it then shows.</summary>
    /// <param name="plan">A plan that fails.</param>
    /// <param name="limits">How it was looked at.</param>
    /// <param name="failure">How it fails.</param>
    /// <param name="budget">When to be content with what there is.</param>
    public static (int[] Operations, Exception Failure) Shrink(
        SimulationPlan plan, SimulationLimits limits, Exception failure, TimeSpan budget)
    {
        var clock = Stopwatch.StartNew();
        int[] kept = [.. Enumerable.Range(0, plan.Operations.Count)];
        for (int chunk = kept.Length / 2; chunk >= 1 && clock.Elapsed < budget;)
        {
            bool removedAny = false;
            for (int at = 0; at < kept.Length && clock.Elapsed < budget;)
            {
                int[] fewer = [.. kept[..at], .. kept[Math.Min(kept.Length, at + chunk)..]];
                if (Try(plan, limits, fewer) is { } stillFails)
                    (kept, failure, removedAny) = (fewer, stillFails, true);
                else
                    at += chunk;
            }
            if (chunk > 1)
                chunk /= 2;
            else if (!removedAny)
                break;
        }
        return (kept, failure);
    }

    /// <summary>How a plan with some of its operations fails, or null when it does not.</summary>
    public static Exception? Try(SimulationPlan plan, SimulationLimits limits, IReadOnlyList<int> operations)
    {
        IReadOnlyList<IOperation> some = [.. operations.Select(index => plan.Operations[index])];
        try
        {
            new SimulationRun(plan with { Operations = some }, limits).Run();
            return null;
        }
        catch (Exception e)
        {
            return e;
        }
    }
}
