using System.Numerics;

namespace OrleansDisk.Qcow2.Format;

/// <summary>
/// The second half of an extended L2 entry (qcow2 specification, "Extended L2 Entries"). Bit x says that subcluster x is
/// allocated, bit 32 + x that it reads as zeros; neither, that it comes from the backing file.
/// </summary>
public readonly record struct SubclusterBitmap(ulong Raw)
{
    /// <summary>Subclusters of a cluster.</summary>
    public const int Count = 32;

    private const ulong AllocatedMask = uint.MaxValue;
    private const int ZeroShift = 32;

    /// <summary>Every subcluster is allocated.</summary>
    public static SubclusterBitmap AllData => new(AllocatedMask);

    /// <summary>Every subcluster reads as zeros.</summary>
    public static SubclusterBitmap AllZero => new(AllocatedMask << ZeroShift);

    /// <summary>What no cluster may have: who finds it in an entry that changes at this moment has to look again.</summary>
    public static SubclusterBitmap Changing => new(ulong.MaxValue);

    /// <summary>A bit for each subcluster that is allocated.</summary>
    public uint Allocated => (uint)(Raw & AllocatedMask);

    /// <summary>A bit for each subcluster that reads as zeros.</summary>
    public uint Zero => (uint)(Raw >> ZeroShift);

    /// <summary>The bitmap with <paramref name="count"/> subclusters from <paramref name="first"/> allocated.</summary>
    public SubclusterBitmap WithData(int first, int count)
    {
        ulong mask = MaskOf(first, count);
        return new SubclusterBitmap((Raw | mask) & ~(mask << ZeroShift));
    }

    /// <summary>The bitmap with <paramref name="count"/> subclusters from <paramref name="first"/> reading as zeros.</summary>
    public SubclusterBitmap WithZeroes(int first, int count)
    {
        ulong mask = MaskOf(first, count);
        return new SubclusterBitmap((Raw & ~mask) | (mask << ZeroShift));
    }

    /// <summary>Whether every subcluster of a range is allocated.</summary>
    public bool IsData(int first, int count) => (Raw & MaskOf(first, count)) == MaskOf(first, count);

    /// <summary>Whether every subcluster of a range reads as zeros.</summary>
    public bool IsZero(int first, int count) => ((Raw >> ZeroShift) & MaskOf(first, count)) == MaskOf(first, count);

    /// <summary>
    /// Whether the bitmap can be that of a cluster: no subcluster is allocated and reads as zeros, and where there is no
    /// host cluster none is allocated. Compressed clusters have no subclusters.
    /// </summary>
    public bool IsValidFor(ClusterKind cluster) => cluster switch
    {
        ClusterKind.Compressed => true, // a checker minds other bits than none, readers do not
        ClusterKind.Data => (Allocated & Zero) == 0,
        _ => Allocated == 0,
    };

    /// <summary>What it says of a subcluster, given what the rest of the entry says of its cluster.</summary>
    public ClusterKind KindAt(int subcluster, ClusterKind cluster)
    {
        if (cluster == ClusterKind.Compressed)
            return cluster;
        if (!IsValidFor(cluster))
            return ClusterKind.Invalid;
        if ((Zero >> subcluster & 1) != 0)
            return cluster == ClusterKind.Data ? ClusterKind.ZeroAllocated : ClusterKind.ZeroPlain;
        return (Allocated >> subcluster & 1) != 0 ? ClusterKind.Data : ClusterKind.Unallocated;
    }

    /// <summary>How many subclusters from one on are as it is, up to the end of the cluster; at least 1.</summary>
    public int CountAlike(int subcluster)
    {
        uint zero = Zero >> subcluster;
        uint allocated = Allocated >> subcluster;
        uint unlike = ((zero & 1) != 0 ? ~zero : zero) | ((allocated & 1) != 0 ? ~allocated : allocated);
        return Math.Min(BitOperations.TrailingZeroCount(unlike), Count - subcluster);
    }

    private static ulong MaskOf(int first, int count) => ((1UL << count) - 1) << first;
}
