using OrleansDisk.Qcow2.Format;

namespace OrleansDisk.Qcow2.Metadata;

/// <summary>
/// Where the image's metadata lies, so that guest data is never written over it, whatever a damaged table says
/// (docs/consistency.md, W8).
/// </summary>
internal sealed class MetadataMap(ClusterGeometry geometry, OverlapChecks checks = OverlapChecks.Cached)
{
    /// <summary>Tables that exist once and are looked for before all others, in QEMU's order.</summary>
    private static readonly (string Name, OverlapChecks Check)[] _firstRanges =
        [(ActiveL1, OverlapChecks.ActiveL1), (RefcountTable, OverlapChecks.RefcountTable), (SnapshotTable, OverlapChecks.SnapshotTable)];

    /// <summary>Those that are looked for after all others. Who loses the keys loses the disk: they are looked for always.</summary>
    private static readonly (string Name, OverlapChecks Check)[] _lastRanges =
        [(BitmapDirectory, OverlapChecks.BitmapDirectory), (Keys, OverlapChecks.None)];

    private readonly Dictionary<string, (HostCluster First, long Count)> _ranges = [];
    private readonly ClusterSet _refcountBlocks = [];
    private readonly ClusterSet _l2Tables = [];
    private readonly ClusterSet _inactiveL1 = [];
    private readonly ClusterSet _inactiveL2 = [];
    private long _generation = 1;
    private bool _sharesRefcountBlock;

    public const string MainHeader = "qcow2_header";
    public const string ActiveL1 = "active L1 table";
    public const string RefcountTable = "refcount table";
    public const string SnapshotTable = "snapshot table";
    public const string Keys = "encryption header";
    public const string L2Table = "active L2 table";
    public const string RefcountBlock = "refcount block";
    public const string InactiveL1 = "inactive L1 table";
    public const string InactiveL2 = "inactive L2 table";
    public const string BitmapDirectory = "bitmap directory";

    /// <summary>Whether L2 tables of snapshots are wanted here: they take reading the file.</summary>
    public bool WantsInactiveL2 => checks.HasFlag(OverlapChecks.InactiveL2);

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

    /// <summary>Adds the refcount blocks that the refcount table leads to.</summary>
    public void AddRefcountBlocks(List<long> clusters) => _sharesRefcountBlock |= !AddAll(_refcountBlocks, clusters);

    /// <summary>Adds the L2 tables that the active L1 table leads to.</summary>
    public void AddL2Tables(List<long> clusters) => AddAll(_l2Tables, clusters);

    /// <summary>Adds L2 tables that a snapshot's L1 table leads to.</summary>
    public void AddInactiveL2Tables(List<long> clusters) => AddAll(_inactiveL2, clusters);

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
    public string? Find(HostCluster cluster) => Find(cluster, OverlapChecks.Cached);

    /// <summary>The name of the metadata in a host cluster over which guest data must not be written, or null (overlap-check).</summary>
    public string? FindProtected(HostCluster cluster) => Find(cluster, checks);

    /// <summary>Looks for kinds of metadata in the order in which QEMU does, so that the first is the one that it names.</summary>
    private string? Find(HostCluster cluster, OverlapChecks kinds)
    {
        if (cluster.Index == 0 && (kinds & OverlapChecks.MainHeader) != 0)
            return MainHeader;
        if (FindInRanges(cluster.Index, _firstRanges, kinds) is { } first)
            return first;
        if ((kinds & OverlapChecks.InactiveL1) != 0 && _inactiveL1.Contains(cluster.Index))
            return InactiveL1;
        if ((kinds & OverlapChecks.ActiveL2) != 0 && _l2Tables.Contains(cluster.Index))
            return L2Table;
        if ((kinds & OverlapChecks.RefcountBlock) != 0 && _refcountBlocks.Contains(cluster.Index))
            return RefcountBlock;
        if ((kinds & OverlapChecks.InactiveL2) != 0 && _inactiveL2.Contains(cluster.Index))
            return InactiveL2;
        return FindInRanges(cluster.Index, _lastRanges, kinds);
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
                return MainHeader;
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

    private string? FindInRanges(long cluster) =>
        FindInRanges(cluster, _firstRanges, OverlapChecks.All) ?? FindInRanges(cluster, _lastRanges, OverlapChecks.All);

    private string? FindInRanges(long cluster, (string Name, OverlapChecks Check)[] ranges, OverlapChecks kinds)
    {
        foreach ((string name, OverlapChecks check) in ranges)
        {
            if ((kinds & check) != 0 && _ranges.TryGetValue(name, out (HostCluster First, long Count) range)
                && cluster >= range.First.Index && cluster - range.First.Index < range.Count)
            {
                return name;
            }
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

    private bool AddAll(ClusterSet to, List<long> clusters)
    {
        Volatile.Write(ref _generation, _generation + 1);
        return to.AddAll(clusters);
    }

    private void Add(ClusterSet clusters, HostOffset table)
    {
        if (clusters.Add(geometry.ClusterOf(table).Index))
            Volatile.Write(ref _generation, _generation + 1);
    }
}
