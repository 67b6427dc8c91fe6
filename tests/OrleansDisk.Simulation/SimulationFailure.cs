namespace OrleansDisk.Simulation;

/// <summary>Something that must hold does not.</summary>
/// <param name="invariant">Its name in docs/testing.md, such as "I4".</param>
/// <param name="what">What was found instead.</param>
internal sealed class SimulationFailure(string invariant, string what) : Exception($"{invariant}: {what}")
{
    public string Invariant { get; } = invariant;
}
