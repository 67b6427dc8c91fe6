using OrleansDisk.Qcow2.Format;

namespace OrleansDisk.Qcow2.Operations;

/// <summary>
/// Where everything lies in a new image: header, refcount table, first refcount block, L1 table, then the L2 tables and
/// data clusters of a preallocated one and the keys of an encrypted one, with a further refcount block behind the allocation that first needs it. Every
/// cluster up to <see cref="EndCluster"/> is used exactly once.
/// </summary>
internal sealed class InitialLayout
{
    /// <summary>Entries of an L2 table that are allocated in one go.</summary>
    private const int MaxRunClusterCount = 8192;

    private readonly ClusterGeometry _geometry;
    private readonly Dictionary<long, long> _refcountBlocks = [];
    private long _next;

    private InitialLayout(ClusterGeometry geometry, long refcountTableClusters)
    {
        _geometry = geometry;
        RefcountTableClusters = refcountTableClusters;
        Allocate(1 + refcountTableClusters);
    }

    /// <summary>Length of the refcount table, which lies at cluster 1.</summary>
    public long RefcountTableClusters { get; }

    /// <summary>First cluster of the L1 table, or 0 when the disk is empty.</summary>
    public long L1Cluster { get; private set; }

    /// <summary>The cluster of each refcount block, by its index in the refcount table.</summary>
    public IReadOnlyDictionary<long, long> RefcountBlocks => _refcountBlocks;

    /// <summary>The clusters of the image: everything below is used.</summary>
    public long EndCluster => _next;

    /// <summary>Lays an image out.</summary>
    /// <param name="geometry">Cluster and refcount sizes.</param>
    /// <param name="l1EntryCount">Length of the L1 table.</param>
    /// <param name="dataClusterCount">Guest clusters to allocate: 0, or all of the disk.</param>
    /// <param name="keyClusterCount">Clusters for the keys of an encrypted image.</param>
    /// <exception cref="Qcow2Exception">The refcount table would be larger than the format allows.</exception>
    public static InitialLayout Plan(ClusterGeometry geometry, long l1EntryCount, long dataClusterCount, long keyClusterCount)
    {
        // A longer refcount table needs more clusters, and those more refcounts: at most a few rounds.
        for (long tableClusters = 1; ;)
        {
            if (tableClusters << geometry.ClusterBits > ClusterGeometry.MaxRefcountTableBytes)
                throw CreateOperation.TooLarge();
            var layout = new InitialLayout(geometry, tableClusters) { KeyClusterCount = keyClusterCount };
            layout.PlaceL1Table(l1EntryCount);
            foreach (L2Placement _ in layout.PlaceData(dataClusterCount))
            {
                // Only the positions of refcount blocks are wanted.
            }
            if (keyClusterCount > 0)
                layout.PlaceKeys();
            long needed = geometry.ClusterCount(
                ((layout._next >> geometry.RefcountBlockBits) + 1) * sizeof(ulong));
            if (needed <= tableClusters)
                return new InitialLayout(geometry, tableClusters) { L1EntryCount = l1EntryCount, KeyClusterCount = keyClusterCount };
            tableClusters = needed;
        }
    }

    private long L1EntryCount { get; init; }

    private long KeyClusterCount { get; init; }

    /// <summary>Places the tables and data clusters in order; walk through it to its end, once.</summary>
    public IEnumerable<L2Placement> Place(long dataClusterCount)
    {
        PlaceL1Table(L1EntryCount);
        return PlaceData(dataClusterCount);
    }

    /// <summary>Places the keys of an encrypted image, behind everything else; returns their first cluster.</summary>
    public long PlaceKeys() => Allocate(KeyClusterCount);

    private void PlaceL1Table(long entryCount)
    {
        if (entryCount > 0)
            L1Cluster = Allocate(_geometry.ClusterCount(entryCount * sizeof(ulong)));
    }

    private IEnumerable<L2Placement> PlaceData(long clusterCount)
    {
        int runLimit = Math.Min(MaxRunClusterCount, int.MaxValue >> _geometry.ClusterBits);
        for (long guest = 0; guest < clusterCount;)
        {
            long table = Allocate(1);
            int inTable = (int)Math.Min(_geometry.L2EntryCount, clusterCount - guest);
            for (int done = 0; done < inTable;)
            {
                int count = Math.Min(Math.Min(runLimit, MaxRunClusterCount - (done % MaxRunClusterCount)), inTable - done);
                long data = _geometry.HasExternalData ? guest + done : Allocate(count);
                yield return new L2Placement(guest >> _geometry.L2Bits, table, done, data, count);
                done += count;
            }
            guest += inTable;
        }
    }

    /// <summary>Takes the next clusters, and behind them the refcount blocks that they are the first to need.</summary>
    private long Allocate(long clusterCount)
    {
        long first = _next;
        _next += clusterCount;
        for (long block = first >> _geometry.RefcountBlockBits; block <= (_next - 1) >> _geometry.RefcountBlockBits; block++)
            CoverBlock(block);
        return first;
    }

    private void CoverBlock(long block)
    {
        if (_refcountBlocks.ContainsKey(block))
            return;
        long cluster = _next++;
        _refcountBlocks.Add(block, cluster);
        CoverBlock(cluster >> _geometry.RefcountBlockBits);
    }
}

/// <summary>A run of entries of an L2 table, and the host clusters that they get.</summary>
/// <param name="L1Index">Index of the table's L1 entry.</param>
/// <param name="Table">Cluster of the table.</param>
/// <param name="FirstEntry">Index of the first entry in the table.</param>
/// <param name="FirstData">Host cluster of the first entry, in the image or in its data file; the others follow.</param>
/// <param name="Count">Number of entries.</param>
internal readonly record struct L2Placement(long L1Index, long Table, int FirstEntry, long FirstData, int Count);
