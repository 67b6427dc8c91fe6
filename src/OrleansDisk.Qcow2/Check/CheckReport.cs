using OrleansDisk.Qcow2.Format;

namespace OrleansDisk.Qcow2.Check;

/// <summary>How grave a finding is.</summary>
public enum CheckFindingKind
{
    /// <summary>Space is lost, data is not.</summary>
    Leak,

    /// <summary>Metadata is wrong: data may be lost, or further writes may lose it.</summary>
    Corruption,

    /// <summary>Something could not be checked.</summary>
    CheckError,

    /// <summary>Something is being repaired.</summary>
    Repair,
}

/// <summary>One thing that is wrong with an image.</summary>
/// <param name="Kind">How grave it is.</param>
/// <param name="Message">What it is, in the words of qemu-img check where that reports it too.</param>
public readonly record struct CheckFinding(CheckFindingKind Kind, string Message);

/// <summary>What a check does beside counting.</summary>
public sealed record CheckOptions
{
    /// <summary>Called for each finding, in order; null when the report's list is enough.</summary>
    public Action<CheckFinding>? OnFinding { get; init; }

    /// <summary>Findings that the report keeps, from the first; all of them are counted.</summary>
    public int MaxKeptFindings { get; init; } = 1000;
}

/// <summary>The outcome of a check.</summary>
public sealed record CheckReport
{
    public required Header Header { get; init; }

    /// <summary>The first findings, see <see cref="CheckOptions.MaxKeptFindings"/>.</summary>
    public required IReadOnlyList<CheckFinding> Findings { get; init; }

    /// <summary>Clusters whose refcount is higher than the number of references to them.</summary>
    public required long LeakCount { get; init; }

    public required long CorruptionCount { get; init; }

    /// <summary>Things that could not be checked.</summary>
    public required long CheckErrorCount { get; init; }

    /// <summary>Clusters of the disk that the guest sees.</summary>
    public required long TotalClusters { get; init; }

    /// <summary>Guest clusters with a host cluster, or compressed.</summary>
    public required long AllocatedClusters { get; init; }

    /// <summary>Allocated clusters that do not follow their neighbour in the file; compressed clusters always count.</summary>
    public required long FragmentedClusters { get; init; }

    public required long CompressedClusters { get; init; }

    /// <summary>Bytes up to the end of the last cluster that is in use.</summary>
    public required long ImageEndOffset { get; init; }

    public bool IsConsistent => LeakCount == 0 && CorruptionCount == 0 && CheckErrorCount == 0;
}
