namespace OrleansDisk.Abstractions;

/// <summary>How a client wants an image.</summary>
[GenerateSerializer, Immutable, Alias("OrleansDisk.OpenImage")]
public sealed record OpenImage
{
    /// <summary>The client will not write. The image is opened for writing as soon as another client wants that.</summary>
    [Id(0)]
    public bool ReadOnly { get; init; }

    /// <summary>The opening that the client used until now; empty when it had none.</summary>
    [Id(1)]
    public Guid Previous { get; init; }

    /// <summary>
    /// The id or, if no snapshot has that id, the name of an internal snapshot that is read in place of the disk; null: the disk.
    /// The opening ends when the snapshot is deleted.
    /// </summary>
    [Id(2)]
    public string? Snapshot { get; init; }
}

/// <summary>An open image, as its clients need to know it.</summary>
[GenerateSerializer, Immutable, Alias("OrleansDisk.OpenedImage")]
public sealed record OpenedImage
{
    /// <summary>The key of the image.</summary>
    [Id(0)]
    public required string Image { get; init; }

    /// <summary>Tells this opening of the image from every other; batches carry it.</summary>
    [Id(1)]
    public required Guid Generation { get; init; }

    /// <summary>Size of the disk in bytes.</summary>
    [Id(2)]
    public required long VirtualBytes { get; init; }

    /// <summary>Whether the image is open for reading only.</summary>
    [Id(3)]
    public required bool IsReadOnly { get; init; }

    /// <summary>The request size that suits the image, in bytes.</summary>
    [Id(4)]
    public required int PreferredBytes { get; init; }

    /// <summary>Whether zeros are written by metadata alone, and so are faster than a write of as many bytes.</summary>
    [Id(5)]
    public required bool CanFastZero { get; init; }

    /// <summary>
    /// Whether everything that completed under <see cref="OpenImage.Previous"/> is in this opening: it is the same, or
    /// was closed without an error. If false, writes that were not flushed may be lost.
    /// </summary>
    [Id(6)]
    public required bool ContinuesPrevious { get; init; }

    /// <summary>How long the grain keeps the image open without a call.</summary>
    [Id(7)]
    public required TimeSpan IdleTime { get; init; }
}

/// <summary>What a new image is to be.</summary>
[GenerateSerializer, Immutable, Alias("OrleansDisk.CreateImage")]
public sealed record CreateImage
{
    /// <summary>Size of the disk in bytes; rounded up to whole sectors of 512 bytes.</summary>
    [Id(0)]
    public required long VirtualBytes { get; init; }

    /// <summary>Format version: 2 or 3.</summary>
    [Id(1)]
    public int Version { get; init; } = 3;

    /// <summary>Cluster size in bytes: a power of two from 512 to 2 MiB.</summary>
    [Id(2)]
    public long ClusterBytes { get; init; } = 64 << 10;

    /// <summary>Width of a refcount in bits: a power of two from 1 to 64; 16 in version 2.</summary>
    [Id(3)]
    public long RefcountBits { get; init; } = 16;

    /// <summary>Whether every cluster has its place in the file from the start (preallocation=metadata).</summary>
    [Id(4)]
    public bool PreallocateMetadata { get; init; }

    /// <summary>The key of the image below this one, or null.</summary>
    [Id(5)]
    public string? Backing { get; init; }
}

/// <summary>What an image is.</summary>
[GenerateSerializer, Immutable, Alias("OrleansDisk.ImageDescription")]
public sealed record ImageDescription
{
    /// <summary>The key of the image.</summary>
    [Id(0)]
    public required string Image { get; init; }

    /// <summary>Size of the disk in bytes.</summary>
    [Id(1)]
    public required long VirtualBytes { get; init; }

    /// <summary>Length of the file in bytes.</summary>
    [Id(2)]
    public required long FileBytes { get; init; }

    /// <summary>Format version: 2 or 3.</summary>
    [Id(3)]
    public required int Version { get; init; }

    [Id(4)]
    public required int ClusterBytes { get; init; }

    [Id(5)]
    public required int RefcountBits { get; init; }

    /// <summary>Name of the backing file as it is stored, or null.</summary>
    [Id(6)]
    public string? BackingFile { get; init; }

    /// <summary>Format of the backing file as it is stored, or null.</summary>
    [Id(7)]
    public string? BackingFormat { get; init; }

    [Id(8)]
    public required int SnapshotCount { get; init; }

    /// <summary>Whether a program found the image damaged and marked it so.</summary>
    [Id(9)]
    public required bool IsCorrupt { get; init; }

    /// <summary>The opening of the image; empty when the grain does not hold it open.</summary>
    [Id(10)]
    public Guid Generation { get; init; }

    /// <summary>Whether it is open for reading only.</summary>
    [Id(11)]
    public bool IsReadOnly { get; init; }
}

/// <summary>An internal snapshot.</summary>
[GenerateSerializer, Immutable, Alias("OrleansDisk.ImageSnapshot")]
public sealed record ImageSnapshot
{
    /// <summary>Its id, which no other snapshot of the image has.</summary>
    [Id(0)]
    public required string Id { get; init; }

    [Id(1)]
    public required string Name { get; init; }

    /// <summary>When it was taken.</summary>
    [Id(2)]
    public required DateTimeOffset Date { get; init; }

    /// <summary>Size of its disk in bytes, or null when it does not say.</summary>
    [Id(3)]
    public long? VirtualBytes { get; init; }

    /// <summary>Bytes of saved VM state; 0 when there is none.</summary>
    [Id(4)]
    public ulong VmStateBytes { get; init; }
}

/// <summary>What a check found.</summary>
[GenerateSerializer, Immutable, Alias("OrleansDisk.ImageCheckResult")]
public sealed record ImageCheckResult
{
    /// <summary>Metadata that is wrong.</summary>
    [Id(0)]
    public required long CorruptionCount { get; init; }

    /// <summary>Clusters that nothing uses any more.</summary>
    [Id(1)]
    public required long LeakCount { get; init; }

    /// <summary>Things that could not be checked.</summary>
    [Id(2)]
    public required long CheckErrorCount { get; init; }

    /// <summary>The first findings, in the words of qemu-img check.</summary>
    [Id(3)]
    public required ReadOnlyMemory<string> Findings { get; init; }

    /// <summary>Clusters of the disk.</summary>
    [Id(4)]
    public required long TotalClusters { get; init; }

    [Id(5)]
    public required long AllocatedClusters { get; init; }

    public bool IsConsistent => CorruptionCount == 0 && LeakCount == 0 && CheckErrorCount == 0;
}
