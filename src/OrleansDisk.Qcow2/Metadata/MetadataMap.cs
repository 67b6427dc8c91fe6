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
    private readonly HashSet<long> _inactiveL1 = [];
    private long _generation = 1;
    private bool _sharesRefcountBlock;

    public const string ActiveL1 = "active L1 table";
    public const string RefcountTable = "refcount table";
    public const string SnapshotTable = "snapshot table";
    public const string Keys = "encryption header";
    public const string L2Table = "active L2 table";
    public const string RefcountBlock = "refcount block";
    public const string InactiveL1 = "inactive L1 table";

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

    /// <summary>Length of a table that exists once, in whole clusters.</summary>
    public long BytesOf(string name) => _ranges.TryGetValue(name, out (HostCluster First, long Count) range) ? range.Count << geometry.ClusterBits : 0;

    public void AddRefcountBlock(HostOffset block)
    {
        _sharesRefcountBlock |= _refcountBlocks.Contains(geometry.ClusterOf(block).Index);
        Add(_refcountBlocks, block);
    }

    /// <summary>Adds the L1 table of a snapshot.</summary>
    public void AddInactiveL1(HostOffset start, long bytes)
    {
        for (long at = 0; at < bytes; at += geometry.ClusterBytes)
            Add(_inactiveL1, start + at);
    }

    /// <summary>A refcount block is another cluster from now on, or none.</summary>
    public void RemoveRefcountBlock(HostOffset block) => _refcountBlocks.Remove(geometry.ClusterOf(block).Index);

    /// <summary>The L1 table of a snapshot has gone.</summary>
    public void RemoveInactiveL1(HostOffset start, long bytes)
    {
        for (long at = 0; at < bytes; at += geometry.ClusterBytes)
            _inactiveL1.Remove(geometry.ClusterOf(start + at).Index);
    }

    public void AddL2Table(HostOffset table) => Add(_l2Tables, table);

    /// <summary>Whether an L2 table was there.</summary>
    public bool RemoveL2Table(HostCluster table) => _l2Tables.Remove(table.Index);

    /// <summary>The name of the metadata in a host cluster, or null.</summary>
    public string? Find(HostCluster cluster)
    {
        if (cluster.Index == 0)
            return "qcow2_header";
        if (FindInRanges(cluster.Index) is { } name)
            return name;
        if (_l2Tables.Contains(cluster.Index))
            return L2Table;
        if (_refcountBlocks.Contains(cluster.Index))
            return RefcountBlock;
        return _inactiveL1.Contains(cluster.Index) ? InactiveL1 : null;
    }

    /// <summary>
    /// Refuses tables that lie in each other: who writes the one changes the other. Call it before anything is written.
    /// </summary>
    /// <exception cref="MetadataDamagedException">They do.</exception>
    public void EnsureDisjoint()
    {
        if (FindOverlap() is { } name)
            throw new MetadataDamagedException($"Preventing invalid write on metadata (overlaps with {name})");
    }

    private string? FindOverlap()
    {
        if (_sharesRefcountBlock)
            return RefcountBlock;
        foreach ((string name, (HostCluster first, long count)) in _ranges)
        {
            if (first.Index == 0)
                return "qcow2_header";
            foreach ((string other, (HostCluster otherFirst, long otherCount)) in _ranges)
            {
                if (other != name && first.Index < otherFirst.Index + otherCount && otherFirst.Index < first.Index + count)
                    return other;
            }
        }
        foreach (long block in _refcountBlocks)
        {
            if (FindInRanges(block) is { } name)
                return name;
        }
        foreach (long table in _l2Tables)
        {
            if (FindInRanges(table) is { } name)
                return name;
            if (_refcountBlocks.Contains(table))
                return RefcountBlock;
        }
        return null;
    }

    private string? FindInRanges(long cluster)
    {
        foreach ((string name, (HostCluster first, long count)) in _ranges)
        {
            if (cluster >= first.Index && cluster - first.Index < count)
                return name;
        }
        return null;
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
