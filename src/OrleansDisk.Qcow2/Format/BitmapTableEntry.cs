namespace OrleansDisk.Qcow2.Format;

/// <summary>
/// An entry of a bitmap table: what a cluster of a bitmap's bits holds (qcow2 specification, "Bitmap table").
/// </summary>
internal readonly record struct BitmapTableEntry(ulong Raw)
{
    private const ulong OffsetMask = 0x00ff_ffff_ffff_fe00;
    private const ulong AllOnesFlag = 1;

    /// <summary>No cluster, and all its bits are 0.</summary>
    public static BitmapTableEntry AllZeros => default;

    /// <summary>No cluster, and all its bits are 1.</summary>
    public static BitmapTableEntry AllOnes => new(AllOnesFlag);

    /// <summary>Whether the bits lie in a cluster; else they are all alike.</summary>
    public bool HasCluster => (Raw & OffsetMask) != 0;

    /// <summary>Where the bits lie, if they do in a cluster.</summary>
    public HostOffset Cluster => new((long)(Raw & OffsetMask));

    public static BitmapTableEntry To(HostOffset cluster) => new((ulong)cluster.Bytes);

    /// <summary>Whether the specification allows the entry.</summary>
    public bool IsValid(ClusterGeometry geometry) => (Raw & ~(OffsetMask | AllOnesFlag)) == 0
        && (!HasCluster || (Raw & AllOnesFlag) == 0) && geometry.IsAligned(Cluster.Bytes);
}
