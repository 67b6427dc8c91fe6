namespace OrleansDisk.Qcow2;

/// <summary>Why nothing could be done with a snapshot.</summary>
public enum SnapshotError
{
    /// <summary>There is no such snapshot.</summary>
    NotFound,

    /// <summary>The format has no room for more: snapshots, their table, or a name.</summary>
    TooLarge,

    /// <summary>A cluster has the largest refcount that its width can hold.</summary>
    RefcountsFull,

    /// <summary>The image has something that snapshots don't go with.</summary>
    NotSupported,

    /// <summary>Dirty bitmaps would not know what the snapshot changes.</summary>
    HasBitmaps,
}

/// <summary>Nothing could be done with a snapshot; the image is as it was.</summary>
public sealed class SnapshotException(SnapshotError error, string message) : Qcow2Exception(message)
{
    public SnapshotError Error { get; } = error;
}

/// <summary>Which snapshot is meant.</summary>
public sealed record SnapshotSelector
{
    /// <summary>Its id or, if no snapshot has that id, its name; the other two then do not matter.</summary>
    public string? IdOrName { get; init; }

    /// <summary>Its id, or null for any.</summary>
    public string? Id { get; init; }

    /// <summary>Its name, or null for any.</summary>
    public string? Name { get; init; }
}

/// <summary>What a new snapshot is to say of itself.</summary>
public sealed record SnapshotDescription
{
    public required string Name { get; init; }

    /// <summary>When it is taken; the engine has no clock.</summary>
    public required DateTimeOffset Date { get; init; }

    /// <summary>Run time of the guest, in nanoseconds.</summary>
    public ulong VmClockNanoseconds { get; init; }

    /// <summary>Bytes of VM state that were written with <see cref="Qcow2Image.WriteVmStateAsync"/>; the snapshot takes them over.</summary>
    public ulong VmStateBytes { get; init; }

    /// <summary>Instruction count of record and replay, or null.</summary>
    public ulong? InstructionCount { get; init; }
}
