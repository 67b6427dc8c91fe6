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

/// <summary>What an L2 entry says of its guest cluster.</summary>
public enum ClusterKind
{
    /// <summary>Nothing here: reads come from the backing file, or are zeros.</summary>
    Unallocated,

    /// <summary>A standard cluster that holds guest data.</summary>
    Data,

    /// <summary>A compressed cluster.</summary>
    Compressed,

    /// <summary>Reads as zeros; no host cluster.</summary>
    ZeroPlain,

    /// <summary>Reads as zeros; a host cluster is kept for later writes.</summary>
    ZeroAllocated,
}

/// <summary>A standard (8-byte) entry of an L2 table (qcow2 specification, "L2 table entry").</summary>
public readonly record struct L2Entry(ulong Raw)
{
    private const ulong OffsetMask = 0x00ff_ffff_ffff_fe00;
    private const ulong CopiedFlag = 1UL << 63;
    private const ulong CompressedFlag = 1UL << 62;
    private const ulong ZeroFlag = 1;

    /// <summary>Bits of an uncompressed entry that must be zero.</summary>
    public const ulong ReservedMask = ~(OffsetMask | CopiedFlag | CompressedFlag | ZeroFlag);

    public static L2Entry Unallocated => default;

    public static L2Entry ZeroPlain => new(ZeroFlag);

    public static L2Entry Data(HostOffset host, bool copied) => new((ulong)host.Bytes | (copied ? CopiedFlag : 0));

    public ClusterKind Kind
    {
        get
        {
            if ((Raw & CompressedFlag) != 0)
                return ClusterKind.Compressed;
            bool hasOffset = (Raw & OffsetMask) != 0;
            if ((Raw & ZeroFlag) != 0)
                return hasOffset ? ClusterKind.ZeroAllocated : ClusterKind.ZeroPlain;
            return hasOffset ? ClusterKind.Data : ClusterKind.Unallocated;
        }
    }

    /// <summary>Host offset of a standard cluster; meaningless for a compressed one.</summary>
    public HostOffset Host => new((long)(Raw & OffsetMask));

    /// <summary>Copied flag: the cluster's refcount is exactly one, so it can be written in place.</summary>
    public bool IsCopied => (Raw & CopiedFlag) != 0;

    /// <summary>The entry with its copied flag set or cleared.</summary>
    public L2Entry WithCopied(bool copied) => new(copied ? Raw | CopiedFlag : Raw & ~CopiedFlag);

    /// <summary>The entry with the zero flag set, its host cluster kept.</summary>
    public L2Entry WithZero() => new(Raw | ZeroFlag);

    /// <summary>The entry with the zero flag cleared.</summary>
    public L2Entry WithoutZero() => new(Raw & ~ZeroFlag);

    /// <summary>
    /// The place of a compressed cluster. With x = 62 - (cluster_bits - 8), the low x bits are a byte offset of any
    /// alignment and the bits above count the 512-byte sectors used in addition to the one of the first byte.
    /// </summary>
    public CompressedExtent Compressed(ClusterGeometry geometry)
    {
        int offsetBits = 62 - (geometry.ClusterBits - 8);
        long offset = (long)(Raw & ((1UL << offsetBits) - 1));
        int additionalSectorCount = (int)((Raw >> offsetBits) & ((1UL << (geometry.ClusterBits - 8)) - 1));
        int bytes = ((additionalSectorCount + 1) * 512) - (int)(offset & 511);
        return new CompressedExtent(new HostOffset(offset), bytes);
    }
}

/// <summary>Where a compressed cluster's bytes may lie; the stream can end earlier.</summary>
/// <param name="Start">First byte.</param>
/// <param name="Bytes">Readable bytes, from 1 to two clusters.</param>
public readonly record struct CompressedExtent(HostOffset Start, int Bytes);
