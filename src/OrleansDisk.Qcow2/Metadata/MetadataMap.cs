using OrleansDisk.Qcow2.Format;

namespace OrleansDisk.Qcow2.Metadata;

/// <summary>
/// Where the image's metadata lies, so that guest data is never written over it, whatever a damaged table says
/// (docs/consistency.md, W8).
/// </summary>
internal sealed class MetadataMap(ClusterGeometry geometry)
{
    private readonly Dictionary<string, (HostCluster First, long Count)> _ranges = [];
    private readonly HashSet<long> _refcountBlocks = [];
    private readonly HashSet<long> _l2Tables = [];

    private long _generation = 1;

    public const string ActiveL1 = "active L1 table";
    public const string RefcountTable = "refcount table";
    public const string SnapshotTable = "snapshot table";

    /// <summary>
    /// Changes with every cluster that becomes metadata: what was no metadata before may be some now. May be read by any
    /// thread.
    /// </summary>
    public long Generation => Volatile.Read(ref _generation);

    /// <summary>Says where a table that exists once lies; a later call replaces it.</summary>
    public void SetRange(string name, HostOffset start, long bytes)
    {
        Volatile.Write(ref _generation, _generation + 1);
        if (bytes == 0)
            _ranges.Remove(name);
        else
            _ranges[name] = (geometry.ClusterOf(start), geometry.ClusterCount(bytes));
    }

    public void AddRefcountBlock(HostOffset block) => Add(_refcountBlocks, block);

    public void AddL2Table(HostOffset table) => Add(_l2Tables, table);

    public void RemoveL2Table(HostCluster table) => _l2Tables.Remove(table.Index);

    /// <summary>The name of the metadata in a host cluster, or null.</summary>
    public string? Find(HostCluster cluster)
    {
        if (cluster.Index == 0)
            return "qcow2_header";
        foreach ((string name, (HostCluster first, long count)) in _ranges)
        {
            if (cluster.Index >= first.Index && cluster.Index - first.Index < count)
                return name;
        }
        if (_l2Tables.Contains(cluster.Index))
            return "active L2 table";
        return _refcountBlocks.Contains(cluster.Index) ? "refcount block" : null;
    }

    /// <summary>The name of the metadata in one of <paramref name="count"/> host clusters, or null.</summary>
    public string? Find(HostCluster first, long count)
    {
        for (long i = 0; i < count; i++)
        {
            if (Find(first + i) is { } name)
                return name;
        }
        return null;
    }

    private void Add(HashSet<long> clusters, HostOffset table)
    {
        if (clusters.Add(geometry.ClusterOf(table).Index))
            Volatile.Write(ref _generation, _generation + 1);
    }
}
