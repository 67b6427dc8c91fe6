namespace OrleansDisk.Qcow2.Check.Repair;

/// <summary>What a repair may change.</summary>
[Flags]
public enum RepairKinds
{
    None = 0,

    /// <summary>Refcounts that are too high.</summary>
    Leaks = 1 << 0,

    /// <summary>All else that can be put right without a guess about data.</summary>
    Errors = 1 << 1,

    All = Leaks | Errors,
}

/// <summary>What a repair did.</summary>
/// <param name="LeaksFixed">Leaked clusters that are free now.</param>
/// <param name="CorruptionsFixed">Corruptions that are no more.</param>
/// <param name="Check">What it found and left as it was.</param>
public sealed record RepairReport(long LeaksFixed, long CorruptionsFixed, CheckReport Check)
{
    public bool HasChanged => LeaksFixed > 0 || CorruptionsFixed > 0;
}

/// <summary>A repair can't be done as it was asked for; the findings say why. What it had written before is right by itself.</summary>
public sealed class RepairFailedException(string message) : Qcow2Exception(message);
