namespace OrleansDisk.Qcow2.Format;

/// <summary>Incompatible features: an image with a bit that is not understood must not be opened.</summary>
[Flags]
public enum IncompatibleFeatures : ulong
{
    None = 0,

    /// <summary>Refcounts may be stale; they must be rebuilt before the image is written.</summary>
    Dirty = 1 << 0,

    /// <summary>Metadata is damaged; the image may only be read until it is repaired.</summary>
    Corrupt = 1 << 1,

    /// <summary>Guest data lies in another file.</summary>
    ExternalDataFile = 1 << 2,

    /// <summary>The compression type is not deflate.</summary>
    CompressionType = 1 << 3,

    /// <summary>L2 entries are 16 bytes and have subclusters.</summary>
    ExtendedL2 = 1 << 4,
}

/// <summary>Compatible features: bits that are not understood are kept and ignored.</summary>
[Flags]
public enum CompatibleFeatures : ulong
{
    None = 0,

    /// <summary>Refcount updates may be delayed.</summary>
    LazyRefcounts = 1 << 0,
}

/// <summary>Autoclear features: who writes the image and does not understand a bit clears it first.</summary>
[Flags]
public enum AutoclearFeatures : ulong
{
    None = 0,

    /// <summary>The bitmaps extension is consistent.</summary>
    Bitmaps = 1 << 0,

    /// <summary>The external data file can be read as a raw image.</summary>
    RawExternalData = 1 << 1,
}

/// <summary>One row of the feature name table (48 bytes on disk).</summary>
/// <param name="Type">0 incompatible, 1 compatible, 2 autoclear.</param>
/// <param name="Bit">Bit number, 0 to 63.</param>
/// <param name="Name">At most 46 bytes.</param>
public readonly record struct FeatureName(byte Type, byte Bit, string Name)
{
    public const int RowBytes = 48;

    /// <summary>The names that are written into new images.</summary>
    public static IReadOnlyList<FeatureName> Known { get; } =
    [
        new(0, 0, "dirty bit"),
        new(0, 1, "corrupt bit"),
        new(0, 2, "external data file"),
        new(0, 3, "compression type"),
        new(0, 4, "extended L2 entries"),
        new(1, 0, "lazy refcounts"),
        new(2, 0, "bitmaps"),
        new(2, 1, "raw external data"),
    ];
}
