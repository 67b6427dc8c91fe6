using System.Numerics;

namespace OrleansDisk.Qcow2.Format;

/// <summary>
/// The sizes that follow from a header's cluster_bits and refcount_order, and the arithmetic between offsets,
/// clusters and table indexes (qcow2 specification, "Host cluster management" and "Cluster mapping").
/// </summary>
public sealed class ClusterGeometry
{
    public const int MinClusterBits = 9;
    public const int MaxClusterBits = 21;
    public const int MaxRefcountOrder = 6;

    /// <summary>Largest L2 slice in bytes: what a look-up that misses the cache reads.</summary>
    public const int MaxL2SliceBytes = 4096;

    /// <summary>Largest L1 table that is accepted, in bytes (QEMU's limit).</summary>
    public const long MaxL1Bytes = 32L << 20;

    /// <summary>Largest refcount table that is accepted, in bytes (QEMU's limit).</summary>
    public const long MaxRefcountTableBytes = 8L << 20;

    /// <summary>Host offsets of tables and data clusters stay below this (bits 9 to 55 of an entry).</summary>
    public const long HostOffsetLimit = 1L << 56;

    public ClusterGeometry(int clusterBits, int refcountOrder)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(clusterBits, MinClusterBits);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(clusterBits, MaxClusterBits);
        ArgumentOutOfRangeException.ThrowIfNegative(refcountOrder);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(refcountOrder, MaxRefcountOrder);
        ClusterBits = clusterBits;
        RefcountOrder = refcountOrder;
        L2Bits = clusterBits - 3;
        L2SliceBits = BitOperations.Log2((uint)Math.Min(ClusterBytes, MaxL2SliceBytes)) - 3;
        RefcountBlockBits = clusterBits + 3 - refcountOrder;
    }

    /// <summary>Base-2 logarithm of the cluster size: 9 (512 bytes) to 21 (2 MiB).</summary>
    public int ClusterBits { get; }

    /// <summary>Base-2 logarithm of the width of a refcount in bits: 0 (1 bit) to 6 (64 bits).</summary>
    public int RefcountOrder { get; }

    /// <summary>Width of a refcount in bits: 1 to 64.</summary>
    public int RefcountBits => 1 << RefcountOrder;

    /// <summary>Base-2 logarithm of the number of entries in an L2 table.</summary>
    public int L2Bits { get; }

    /// <summary>
    /// Base-2 logarithm of the number of entries in an L2 slice: a part of an L2 table that is read and cached by itself.
    /// </summary>
    public int L2SliceBits { get; }

    /// <summary>Base-2 logarithm of the number of refcounts in a refcount block.</summary>
    public int RefcountBlockBits { get; }

    public int ClusterBytes => 1 << ClusterBits;

    public int L2EntryCount => 1 << L2Bits;

    public int L2SliceEntryCount => 1 << L2SliceBits;

    public int L2SliceBytes => L2SliceEntryCount * sizeof(ulong);

    /// <summary>L2 slices of an L2 table.</summary>
    public int L2SliceCount => 1 << (L2Bits - L2SliceBits);

    public int RefcountBlockEntryCount => 1 << RefcountBlockBits;

    /// <summary>Guest bytes that one L2 table maps.</summary>
    public long BytesPerL2Table => 1L << (ClusterBits + L2Bits);

    /// <summary>Largest refcount that fits the width.</summary>
    public ulong MaxRefcount => RefcountOrder == 6 ? ulong.MaxValue : (1UL << (1 << RefcountOrder)) - 1;

    public bool IsAligned(long offset) => (offset & (ClusterBytes - 1)) == 0;

    public GuestCluster ClusterOf(GuestOffset offset) => new(offset.Bytes >> ClusterBits);

    public HostCluster ClusterOf(HostOffset offset) => new(offset.Bytes >> ClusterBits);

    public GuestOffset OffsetOf(GuestCluster cluster) => new(cluster.Index << ClusterBits);

    public HostOffset OffsetOf(HostCluster cluster) => new(cluster.Index << ClusterBits);

    /// <summary>Bytes from the start of its cluster to <paramref name="offset"/>.</summary>
    public int OffsetInCluster(GuestOffset offset) => (int)(offset.Bytes & (ClusterBytes - 1));

    /// <summary>Index of the L1 entry that covers a guest cluster.</summary>
    public int L1Index(GuestCluster cluster) => (int)(cluster.Index >> L2Bits);

    /// <summary>Index of a guest cluster's entry in its L2 table.</summary>
    public int L2Index(GuestCluster cluster) => (int)(cluster.Index & (L2EntryCount - 1));

    /// <summary>Number of the L2 slice that maps a guest cluster, counted over the whole disk.</summary>
    public long L2Slice(GuestCluster cluster) => cluster.Index >> L2SliceBits;

    /// <summary>Index of a guest cluster's entry in its L2 slice.</summary>
    public int L2SliceIndex(GuestCluster cluster) => (int)(cluster.Index & (L2SliceEntryCount - 1));

    /// <summary>Index of the refcount table entry that covers a host cluster.</summary>
    public int RefcountTableIndex(HostCluster cluster) => (int)(cluster.Index >> RefcountBlockBits);

    /// <summary>Index of a host cluster's refcount in its refcount block.</summary>
    public int RefcountBlockIndex(HostCluster cluster) => (int)(cluster.Index & (RefcountBlockEntryCount - 1));

    /// <summary>Clusters needed to hold <paramref name="bytes"/>.</summary>
    public long ClusterCount(long bytes) => (bytes >> ClusterBits) + ((bytes & (ClusterBytes - 1)) != 0 ? 1 : 0);

    /// <summary>L1 entries needed to map a disk of <paramref name="virtualBytes"/>.</summary>
    public long L1EntryCount(long virtualBytes)
    {
        long tableBytes = BytesPerL2Table;
        return (virtualBytes / tableBytes) + (virtualBytes % tableBytes != 0 ? 1 : 0);
    }

    /// <summary>The offset rounded up to a whole cluster.</summary>
    public long RoundUp(long bytes) => ClusterCount(bytes) << ClusterBits;
}
