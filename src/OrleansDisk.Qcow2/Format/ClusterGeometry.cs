using System.Numerics;

namespace OrleansDisk.Qcow2.Format;

/// <summary>
/// What a header's cluster_bits, refcount_order and incompatible features say of tables: their sizes, how L2 entries are
/// read, and the arithmetic between offsets, clusters and table indexes (qcow2 specification, "Host cluster management",
/// "Cluster mapping" and "Extended L2 Entries").
/// </summary>
public sealed class ClusterGeometry
{
    public const int MinClusterBits = 9;
    public const int MaxClusterBits = 21;
    public const int MaxRefcountOrder = 6;

    /// <summary>Smallest cluster that can have subclusters, which are sectors then.</summary>
    public const int MinSubclusteredBits = MinClusterBits + 5;

    /// <summary>Length of an L2 slice in bytes, where a cluster is not smaller and nothing else is asked for: what a look-up that misses the cache reads.</summary>
    public const int MaxL2SliceBytes = 4096;

    /// <summary>Largest L1 table that is accepted, in bytes (QEMU's limit).</summary>
    public const long MaxL1Bytes = 32L << 20;

    /// <summary>Largest refcount table that is accepted, in bytes (QEMU's limit).</summary>
    public const long MaxRefcountTableBytes = 8L << 20;

    /// <summary>Host offsets of tables and data clusters stay below this (bits 9 to 55 of an entry).</summary>
    public const long HostOffsetLimit = 1L << 56;

    /// <param name="clusterBits">See <see cref="ClusterBits"/>.</param>
    /// <param name="refcountOrder">See <see cref="RefcountOrder"/>.</param>
    /// <param name="features">What of them says how L2 entries are read; the others do not matter.</param>
    public ClusterGeometry(int clusterBits, int refcountOrder, IncompatibleFeatures features = IncompatibleFeatures.None)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(clusterBits, MinClusterBits);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(clusterBits, MaxClusterBits);
        ArgumentOutOfRangeException.ThrowIfNegative(refcountOrder);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(refcountOrder, MaxRefcountOrder);
        ClusterBits = clusterBits;
        RefcountOrder = refcountOrder;
        HasSubclusters = features.HasFlag(IncompatibleFeatures.ExtendedL2);
        HasExternalData = features.HasFlag(IncompatibleFeatures.ExternalDataFile);
        if (HasSubclusters)
            ArgumentOutOfRangeException.ThrowIfLessThan(clusterBits, MinSubclusteredBits);
        int l2EntryOrder = BitOperations.Log2((uint)L2EntryBytes);
        L2Bits = clusterBits - l2EntryOrder;
        L2SliceBits = BitOperations.Log2((uint)Math.Min(ClusterBytes, MaxL2SliceBytes)) - l2EntryOrder;
        SubclusterBits = HasSubclusters ? clusterBits - BitOperations.Log2(SubclusterBitmap.Count) : clusterBits;
        RefcountBlockBits = clusterBits + 3 - refcountOrder;
    }

    /// <summary>The same with L2 slices of another length: a power of two from 512 bytes to the cluster size.</summary>
    public ClusterGeometry WithL2SliceBytes(int bytes)
    {
        var changed = (ClusterGeometry)MemberwiseClone();
        changed.L2SliceBits = BitOperations.Log2((uint)bytes) - BitOperations.Log2((uint)L2EntryBytes);
        return changed;
    }

    /// <summary>Base-2 logarithm of the cluster size: 9 (512 bytes) to 21 (2 MiB).</summary>
    public int ClusterBits { get; }

    /// <summary>Base-2 logarithm of the width of a refcount in bits: 0 (1 bit) to 6 (64 bits).</summary>
    public int RefcountOrder { get; }

    /// <summary>Width of a refcount in bits: 1 to 64.</summary>
    public int RefcountBits => 1 << RefcountOrder;

    /// <summary>Whether L2 entries are extended: 16 bytes, with a bitmap of 32 subclusters.</summary>
    public bool HasSubclusters { get; }

    /// <summary>Whether guest data lies in an external data file, each cluster at its guest offset.</summary>
    public bool HasExternalData { get; }

    /// <summary>Base-2 logarithm of the size of a subcluster; where there are none, of a cluster.</summary>
    public int SubclusterBits { get; }

    /// <summary>The unit in which guest data is allocated inside a cluster: all of it where there are no subclusters.</summary>
    public int SubclusterBytes => 1 << SubclusterBits;

    /// <summary>Subclusters of a cluster: 32, or 1 where there are none.</summary>
    public int SubclusterCount => 1 << (ClusterBits - SubclusterBits);

    /// <summary>Length of an L2 entry: 8, or 16 with subclusters.</summary>
    public int L2EntryBytes => HasSubclusters ? 2 * sizeof(ulong) : sizeof(ulong);

    /// <summary>Base-2 logarithm of the number of entries in an L2 table.</summary>
    public int L2Bits { get; }

    /// <summary>
    /// Base-2 logarithm of the number of entries in an L2 slice: a part of an L2 table that is read and cached by itself.
    /// </summary>
    public int L2SliceBits { get; private set; }

    /// <summary>Base-2 logarithm of the number of refcounts in a refcount block.</summary>
    public int RefcountBlockBits { get; }

    public int ClusterBytes => 1 << ClusterBits;

    /// <summary>Bits of a compressed cluster's L2 entry that hold its byte offset in the file.</summary>
    public int CompressedOffsetBits => 62 - (ClusterBits - 8);

    public int L2EntryCount => 1 << L2Bits;

    public int L2SliceEntryCount => 1 << L2SliceBits;

    public int L2SliceBytes => L2SliceEntryCount * L2EntryBytes;

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

    /// <summary>The host clusters that a compressed cluster touches, in each of which it has a reference.</summary>
    public (HostCluster First, long Count) ClustersOf(CompressedExtent extent)
    {
        HostCluster first = ClusterOf(extent.Start);
        return (first, ClusterOf(extent.Start + (extent.Bytes - 1)).Index - first.Index + 1);
    }

    /// <summary>Bytes from the start of its cluster to <paramref name="offset"/>.</summary>
    public int OffsetInCluster(GuestOffset offset) => (int)(offset.Bytes & (ClusterBytes - 1));

    /// <summary>Index of the subcluster at an offset in its cluster.</summary>
    public int SubclusterOf(GuestOffset offset) => OffsetInCluster(offset) >> SubclusterBits;

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
