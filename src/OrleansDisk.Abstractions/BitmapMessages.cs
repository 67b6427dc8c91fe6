namespace OrleansDisk.Abstractions;

/// <summary>A persistent dirty bitmap of an image.</summary>
[GenerateSerializer, Immutable, Alias("OrleansDisk.ImageBitmap")]
public sealed record ImageBitmap
{
    [Id(0)]
    public required string Name { get; init; }

    /// <summary>How many bytes of the disk one bit stands for.</summary>
    [Id(1)]
    public required long GranularityBytes { get; init; }

    /// <summary>Whether changes of the disk set bits.</summary>
    [Id(2)]
    public required bool IsEnabled { get; init; }

    /// <summary>Whether it may have missed changes, because the image was not closed in order: it can only be removed.</summary>
    [Id(3)]
    public required bool IsInconsistent { get; init; }
}

/// <summary>What a new bitmap is to be.</summary>
[GenerateSerializer, Immutable, Alias("OrleansDisk.AddBitmap")]
public sealed record AddBitmap
{
    /// <summary>Its name, of 1 to 1023 bytes of UTF-8.</summary>
    [Id(0)]
    public required string Name { get; init; }

    /// <summary>
    /// How many bytes of the disk one bit stands for: a power of two from 512 to 2 GiB. Null: the cluster size, but 4 KiB at least
    /// and 64 KiB at most.
    /// </summary>
    [Id(1)]
    public long? GranularityBytes { get; init; }

    /// <summary>Whether it keeps as it is, without a bit set, until it is enabled.</summary>
    [Id(2)]
    public bool IsDisabled { get; init; }
}

/// <summary>A part of the disk that is alike in a bitmap.</summary>
/// <param name="Bytes">Length, at least 1.</param>
/// <param name="IsDirty">Whether it may have changed since the bitmap was clear.</param>
[GenerateSerializer, Immutable, Alias("OrleansDisk.DirtyExtent")]
public readonly record struct DirtyExtent([property: Id(0)] long Bytes, [property: Id(1)] bool IsDirty);
