namespace OrleansDisk.Abstractions;

/// <summary>What a request does with its range.</summary>
public enum SectorCommand : byte
{
    Read,
    Write,

    /// <summary>The range reads as zeros afterwards.</summary>
    WriteZeroes,

    /// <summary>The range is not needed any more; it reads as zeros or as before.</summary>
    Discard,

    /// <summary>Everything that completed before this began is on stable storage when it completes. It has no range.</summary>
    Flush,

    /// <summary>Reports which parts of the range are allocated, and which read as zeros.</summary>
    Status,
}

/// <summary>How a request does it.</summary>
[Flags]
public enum SectorFlags : byte
{
    None = 0,

    /// <summary>Force unit access: what the request changes is on stable storage when it completes.</summary>
    Fua = 1,

    /// <summary>Write zeroes: space in the file is kept.</summary>
    KeepAllocated = 2,

    /// <summary>Read: parts that read as zeros may be reported as extents instead of being filled in.</summary>
    ReportHoles = 4,

    /// <summary>Status: one extent is enough.</summary>
    OneExtent = 8,
}

/// <summary>One request of a <see cref="SectorBatch"/>. Offsets and lengths are bytes, of any alignment.</summary>
[GenerateSerializer, Immutable, Alias("OrleansDisk.SectorRequest")]
public readonly record struct SectorRequest
{
    [Id(0)]
    public SectorCommand Command { get; init; }

    [Id(1)]
    public SectorFlags Flags { get; init; }

    /// <summary>First byte of the range; 0 for a flush.</summary>
    [Id(2)]
    public long Offset { get; init; }

    /// <summary>
    /// Length of the range; 0 for a flush. At most <see cref="SectorBatch.MaxTransferBytes"/> for a read or a write.
    /// </summary>
    [Id(3)]
    public long Bytes { get; init; }

    /// <summary>The bytes of a write; they belong to the request until it completes.</summary>
    [Id(4)]
    public ReadOnlyMemory<byte> Payload { get; init; }
}

/// <summary>A part of a range, and what is there.</summary>
/// <param name="Bytes">Length, at least 1.</param>
/// <param name="IsHole">Whether nothing is allocated for it in the image or its backing chain.</param>
/// <param name="IsZero">Whether it reads as zeros.</param>
[GenerateSerializer, Immutable, Alias("OrleansDisk.SectorExtent")]
public readonly record struct SectorExtent([property: Id(0)] long Bytes, [property: Id(1)] bool IsHole, [property: Id(2)] bool IsZero);
