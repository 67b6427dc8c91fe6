using System.Buffers.Binary;

namespace OrleansDisk.Qcow2.Format;

/// <summary>An entry of an L1 table (qcow2 specification, "L1 table entry").</summary>
public readonly record struct L1Entry(ulong Raw)
{
    private const ulong OffsetMask = 0x00ff_ffff_ffff_fe00;
    private const ulong CopiedFlag = 1UL << 63;

    /// <summary>Bits that must be zero.</summary>
    public const ulong ReservedMask = ~(OffsetMask | CopiedFlag);

    public static L1Entry Unallocated => default;

    public static L1Entry To(HostOffset l2Table, bool copied) => new((ulong)l2Table.Bytes | (copied ? CopiedFlag : 0));

    public HostOffset L2Table => new((long)(Raw & OffsetMask));

    public bool IsAllocated => (Raw & OffsetMask) != 0;

    /// <summary>Copied flag: the L2 table's refcount is exactly one, so it can be changed in place.</summary>
    public bool IsCopied => (Raw & CopiedFlag) != 0;

    /// <summary>The entry with its copied flag set or cleared.</summary>
    public L1Entry WithCopied(bool copied) => new(copied ? Raw | CopiedFlag : Raw & ~CopiedFlag);
}

/// <summary>An entry of the refcount table (qcow2 specification, "Refcount table entry").</summary>
public readonly record struct RefcountTableEntry(ulong Raw)
{
    private const ulong OffsetMask = 0xffff_ffff_ffff_fe00;

    /// <summary>Bits that must be zero.</summary>
    public const ulong ReservedMask = ~OffsetMask;

    public static RefcountTableEntry To(HostOffset block) => new((ulong)block.Bytes);

    public HostOffset Block => new((long)(Raw & OffsetMask));

    public bool IsAllocated => (Raw & OffsetMask) != 0;
}

/// <summary>What an L2 entry says of its guest cluster, or of one of its subclusters.</summary>
public enum ClusterKind
{
    /// <summary>Nothing here: reads come from the backing file, or are zeros. A subcluster may have space all the same.</summary>
    Unallocated,

    /// <summary>Guest data, in a standard cluster.</summary>
    Data,

    /// <summary>A compressed cluster.</summary>
    Compressed,

    /// <summary>Reads as zeros; no host cluster.</summary>
    ZeroPlain,

    /// <summary>Reads as zeros; a host cluster is kept for later writes.</summary>
    ZeroAllocated,

    /// <summary>The subcluster bitmap says what can't be.</summary>
    Invalid,
}

/// <summary>
/// An entry of an L2 table: 8 bytes (qcow2 specification, "L2 table entry"), or 16 of which the second half is the
/// subcluster bitmap (the same, "Extended L2 Entries").
/// </summary>
/// <param name="Raw">The first 8 bytes.</param>
/// <param name="Bitmap">The other 8 bytes; empty where entries have 8.</param>
public readonly record struct L2Entry(ulong Raw, SubclusterBitmap Bitmap = default)
{
    private const ulong OffsetMask = 0x00ff_ffff_ffff_fe00;
    private const ulong CopiedFlag = 1UL << 63;
    private const ulong CompressedFlag = 1UL << 62;
    private const ulong ZeroFlag = 1;

    /// <summary>Bits of an uncompressed entry that must be zero. In extended entries the zero flag is one more; readers ignore it.</summary>
    public const ulong ReservedMask = ~(OffsetMask | CopiedFlag | CompressedFlag | ZeroFlag);

    public static L2Entry Unallocated => default;

    /// <summary>A host cluster with data, or with what the bitmap says where there are subclusters.</summary>
    public static L2Entry Data(HostOffset host, bool copied, SubclusterBitmap bitmap = default) =>
        new((ulong)host.Bytes | (copied ? CopiedFlag : 0), bitmap);

    /// <summary>A whole cluster of zeros without a host cluster.</summary>
    public static L2Entry ZeroPlain(ClusterGeometry geometry) =>
        geometry.HasSubclusters ? new L2Entry(0, SubclusterBitmap.AllZero) : new L2Entry(ZeroFlag);

    /// <summary>The entry of a compressed cluster, given its bytes; see <see cref="Compressed"/>.</summary>
    public static L2Entry To(CompressedExtent extent, ClusterGeometry geometry)
    {
        long firstSector = extent.Start.Bytes / CompressedExtent.SectorBytes;
        long lastSector = (extent.Start.Bytes + extent.Bytes - 1) / CompressedExtent.SectorBytes;
        return new L2Entry(CompressedFlag | ((ulong)(lastSector - firstSector) << geometry.CompressedOffsetBits) | (ulong)extent.Start.Bytes);
    }

    /// <summary>An entry of a table as it lies on disk.</summary>
    public static L2Entry Read(ReadOnlySpan<byte> table, int index, ClusterGeometry geometry)
    {
        ReadOnlySpan<byte> entry = table[(index * geometry.L2EntryBytes)..];
        return new L2Entry(BinaryPrimitives.ReadUInt64BigEndian(entry),
            geometry.HasSubclusters ? new SubclusterBitmap(BinaryPrimitives.ReadUInt64BigEndian(entry[sizeof(ulong)..])) : default);
    }

    /// <summary>Puts the entry into a table as it lies on disk.</summary>
    public void WriteTo(Span<byte> table, int index, ClusterGeometry geometry)
    {
        Span<byte> entry = table[(index * geometry.L2EntryBytes)..];
        BinaryPrimitives.WriteUInt64BigEndian(entry, Raw);
        if (geometry.HasSubclusters)
            BinaryPrimitives.WriteUInt64BigEndian(entry[sizeof(ulong)..], Bitmap.Raw);
    }

    /// <summary>
    /// What the entry says of its cluster. With subclusters that is whether there is a host cluster (Data), compressed
    /// data, or nothing; <see cref="KindAt"/> says the rest.
    /// </summary>
    public ClusterKind Kind(ClusterGeometry geometry)
    {
        if ((Raw & CompressedFlag) != 0)
            return ClusterKind.Compressed;
        bool hasOffset = (Raw & OffsetMask) != 0;
        if ((Raw & ZeroFlag) != 0 && !geometry.HasSubclusters)
            return hasOffset ? ClusterKind.ZeroAllocated : ClusterKind.ZeroPlain;
        // In an external data file a cluster may lie at offset 0; the copied flag, which is always set there, tells.
        return hasOffset || (geometry.HasExternalData && IsCopied) ? ClusterKind.Data : ClusterKind.Unallocated;
    }

    /// <summary>What the entry says of one subcluster; without subclusters each cluster is its only one.</summary>
    public ClusterKind KindAt(int subcluster, ClusterGeometry geometry)
    {
        ClusterKind kind = Kind(geometry);
        return geometry.HasSubclusters ? Bitmap.KindAt(subcluster, kind) : kind;
    }

    /// <summary>Host offset of a standard cluster; meaningless for a compressed one.</summary>
    public HostOffset Host => new((long)(Raw & OffsetMask));

    /// <summary>Whether there is a host cluster, with data or kept for it. A compressed cluster has none of its own.</summary>
    public bool HasHost(ClusterGeometry geometry) => Kind(geometry) is ClusterKind.Data or ClusterKind.ZeroAllocated;

    /// <summary>Whether this is damage that takes no data with it: space that was kept for zeros, and can't be where the offset says.</summary>
    public bool IsUnalignedZero(ClusterGeometry geometry) => HasHost(geometry) && !geometry.IsAligned(Host.Bytes)
        && (geometry.HasSubclusters ? Bitmap.Allocated == 0 : Kind(geometry) == ClusterKind.ZeroAllocated);

    /// <summary>Copied flag: the cluster's refcount is exactly one, so it can be written in place.</summary>
    public bool IsCopied => (Raw & CopiedFlag) != 0;

    /// <summary>The entry with its copied flag set or cleared.</summary>
    public L2Entry WithCopied(bool copied) => this with { Raw = copied ? Raw | CopiedFlag : Raw & ~CopiedFlag };

    /// <summary>The entry of a whole cluster of zeros, its host cluster kept.</summary>
    public L2Entry WithZero(ClusterGeometry geometry) =>
        geometry.HasSubclusters ? this with { Bitmap = SubclusterBitmap.AllZero } : new L2Entry(Raw | ZeroFlag);

    /// <summary>
    /// The place of a compressed cluster. With x = 62 - (cluster_bits - 8), the low x bits are a byte offset of any
    /// alignment and the bits above count the 512-byte sectors used in addition to the one of the first byte.
    /// </summary>
    public CompressedExtent Compressed(ClusterGeometry geometry)
    {
        int offsetBits = geometry.CompressedOffsetBits;
        long offset = (long)(Raw & ((1UL << offsetBits) - 1));
        int additionalSectorCount = (int)((Raw >> offsetBits) & ((1UL << (geometry.ClusterBits - 8)) - 1));
        int bytes = ((additionalSectorCount + 1) * CompressedExtent.SectorBytes) - (int)(offset % CompressedExtent.SectorBytes);
        return new CompressedExtent(new HostOffset(offset), bytes);
    }
}

/// <summary>Where a compressed cluster's bytes may lie; the stream can end earlier.</summary>
/// <param name="Start">First byte.</param>
/// <param name="Bytes">Readable bytes, from 1 to two clusters.</param>
public readonly record struct CompressedExtent(HostOffset Start, int Bytes)
{
    /// <summary>What the length of compressed clusters is counted in.</summary>
    public const int SectorBytes = 512;
}
