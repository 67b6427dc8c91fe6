using System.Text;

namespace OrleansDisk.Simulation.Run;

/// <summary>What a person needs of a failed run.</summary>
internal static class FailureReport
{
    private static readonly TimeSpan s_shrinkBudget = TimeSpan.FromMinutes(2);

    /// <summary>Shrinks a failing plan and describes it: seed, invariant, operations, and the command that runs it again.</summary>
    public static string Describe(SimulationPlan plan, SimulationLimits limits, Exception failure)
    {
        (int[] operations, Exception shrunk) = Shrinker.Shrink(plan, limits, failure, s_shrinkBudget);
        var text = new StringBuilder();
        text.AppendLine($"seed {plan.Seed}: {Message(failure)}");
        text.AppendLine($"with {operations.Length} of {plan.Operations.Count} operations: {Message(shrunk)}");
        text.AppendLine($"  image: {plan.Shape}");
        foreach (Host.Fault fault in plan.Faults)
            text.AppendLine($"  {fault}");
        foreach (int operation in operations)
            text.AppendLine($"  {operation,4}: {plan.Operations[operation]}");
        text.AppendLine($"again: ./build.sh simulate --seed {plan.Seed} --operations {string.Join(',', operations)}");
        return text.ToString();
    }

    private static string Message(Exception failure) => failure is SimulationFailure ? failure.Message : failure.ToString();
}
