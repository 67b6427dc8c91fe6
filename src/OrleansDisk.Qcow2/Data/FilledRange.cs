using System.Numerics;
using OrleansDisk.Qcow2.Format;

namespace OrleansDisk.Qcow2.Data;

/// <summary>
/// What one write puts into clusters that are new, or refilled: its data, and around it what the guest saw there, as far
/// as the mapping can't say it otherwise. Whole clusters, or whole subclusters.
/// </summary>
/// <param name="Start">First byte.</param>
/// <param name="End">The byte behind the last one.</param>
internal readonly record struct FilledRange(GuestOffset Start, GuestOffset End)
{
    /// <summary>For data that goes to new host clusters: what the old ones hold goes with it.</summary>
    /// <param name="first">Entry of the first cluster.</param>
    /// <param name="last">Entry of the last cluster.</param>
    /// <param name="start">First byte of the data.</param>
    /// <param name="end">The byte behind the data.</param>
    /// <param name="geometry">Sizes.</param>
    public static FilledRange InNewClusters(
        L2Entry first, L2Entry last, GuestOffset start, GuestOffset end, ClusterGeometry geometry)
    {
        GuestOffset lastByte = end + -1;
        int firstSubcluster = Math.Min(geometry.SubclusterOf(start), IsDivided(first, geometry)
            ? BitOperations.TrailingZeroCount(first.Bitmap.Allocated) : 0);
        int lastSubcluster = Math.Max(geometry.SubclusterOf(lastByte), IsDivided(last, geometry)
            ? BitOperations.Log2(last.Bitmap.Allocated) : geometry.SubclusterCount - 1);
        return new FilledRange(
            StartOf(start, firstSubcluster, geometry), StartOf(lastByte, lastSubcluster + 1, geometry));
    }

    /// <summary>For data that goes to a host cluster which is there already: only what holds no data yet is filled.</summary>
    /// <param name="entry">Entry of the cluster; at the data's start it has none.</param>
    /// <param name="start">First byte of the data.</param>
    /// <param name="end">The byte behind the data.</param>
    /// <param name="geometry">Sizes.</param>
    public static FilledRange InKeptCluster(L2Entry entry, GuestOffset start, GuestOffset end, ClusterGeometry geometry)
    {
        GuestOffset lastByte = end + -1;
        int lastSubcluster = geometry.SubclusterOf(lastByte);
        bool endsInData = entry.KindAt(lastSubcluster, geometry) == ClusterKind.Data;
        return new FilledRange(StartOf(start, geometry.SubclusterOf(start), geometry),
            endsInData ? end : StartOf(lastByte, lastSubcluster + 1, geometry));
    }

    /// <summary>The bitmap of one of the clusters when they are written.</summary>
    public SubclusterBitmap BitmapOf(GuestCluster cluster, L2Entry old, ClusterGeometry geometry)
    {
        if (!geometry.HasSubclusters)
            return default;
        long clusterStart = geometry.OffsetOf(cluster).Bytes;
        long from = Math.Max(Start.Bytes - clusterStart, 0) >> geometry.SubclusterBits;
        long to = Math.Min(End.Bytes - 1 - clusterStart, geometry.ClusterBytes - 1) >> geometry.SubclusterBits;
        SubclusterBitmap bitmap = IsDivided(old, geometry) ? old.Bitmap : default;
        return bitmap.WithData((int)from, (int)(to - from) + 1);
    }

    /// <summary>Whether the subclusters of a cluster can differ.</summary>
    private static bool IsDivided(L2Entry entry, ClusterGeometry geometry) =>
        geometry.HasSubclusters && entry.Kind(geometry) != ClusterKind.Compressed;

    private static GuestOffset StartOf(GuestOffset inCluster, int subcluster, ClusterGeometry geometry) =>
        geometry.OffsetOf(geometry.ClusterOf(inCluster)) + ((long)subcluster << geometry.SubclusterBits);
}
