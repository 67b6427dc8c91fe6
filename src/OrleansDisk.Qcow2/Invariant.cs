using System.Diagnostics;
using System.Diagnostics.CodeAnalysis;

namespace OrleansDisk.Qcow2;

/// <summary>Assertions on metadata that stay on in release builds: better a stopped image than a damaged one.</summary>
internal static class Invariant
{
    [StackTraceHidden]
    public static void Assert([DoesNotReturnIf(false)] bool condition, string invariant)
    {
        if (!condition)
            Fail(invariant);
    }

    [DoesNotReturn, StackTraceHidden]
    private static void Fail(string invariant) => throw new InvariantException(invariant);
}

/// <summary>An invariant of the engine does not hold: a defect of this program, never of an image.</summary>
public sealed class InvariantException(string invariant) : Exception($"Invariant violated: {invariant}");
