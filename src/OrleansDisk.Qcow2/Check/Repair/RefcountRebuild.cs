using System.Buffers.Binary;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Qcow2.Check.Repair;

/// <summary>
/// Writes refcount blocks and a refcount table anew, from what was counted, into clusters that nothing uses; the header leads
/// to them only when they are on stable storage. The old ones stay as they are, counted like everything else.
/// </summary>
internal sealed class RefcountRebuild(IBlockFile file, Header header, Examination examination, RepairWriter writer)
{
    private readonly ClusterGeometry _geometry = header.Geometry;
    private readonly ReferenceCounts _references = examination.References;

    /// <summary>Where the new structure goes: clusters that nothing references.</summary>
    private readonly SortedSet<long> _taken = [];

    /// <summary>The cluster of the block of each range of clusters that needs one, by the range's index in the table.</summary>
    private readonly Dictionary<long, long> _blocks = [];

    /// <summary>Ranges whose block has no place yet.</summary>
    private readonly SortedSet<long> _unplaced = [];
    private long _lastRange;
    private HashSet<long> _occupied = [];

    /// <summary>Writes the structure, and a snapshot table with it if there is one to replace.</summary>
    /// <param name="snapshotTable">The new snapshot table, or null: it stays where it is.</param>
    /// <param name="snapshotCount">Its entries.</param>
    /// <exception cref="RepairFailedException">The table would exceed the format's limit.</exception>
    public async Task RunAsync(byte[]? snapshotTable = null, int snapshotCount = 0)
    {
        // Damaged entries lead to clusters that were not counted; they must outlive the switch all the same.
        _occupied = await examination.Refcounts.OccupiedAsync();
        if (!_references.IsComplete)
            await KeepStoredAsync();
        long snapshots = snapshotTable is { Length: > 0 } ? Take(_geometry.ClusterCount(snapshotTable.Length)) : 0;
        (long table, int tableClusters) = Place();
        foreach ((long range, long block) in _blocks)
            await writer.WriteAsync(block << _geometry.ClusterBits, Encode(range));
        await writer.WriteAsync(table << _geometry.ClusterBits, EncodeTable(tableClusters));
        if (snapshots > 0)
            await writer.WriteAsync(snapshots << _geometry.ClusterBits, snapshotTable);
        byte[] fields = new byte[snapshotTable is null ? sizeof(ulong) + sizeof(uint) : HeaderField.SnapshotsOffset + sizeof(ulong) - HeaderField.RefcountTableOffset];
        HeaderField.WriteUInt64(fields, 0, (ulong)table << _geometry.ClusterBits);
        HeaderField.WriteUInt32(fields, HeaderField.RefcountTableClusters - HeaderField.RefcountTableOffset, (uint)tableClusters);
        if (snapshotTable is not null)
        {
            HeaderField.WriteUInt32(fields, HeaderField.SnapshotCount - HeaderField.RefcountTableOffset, (uint)snapshotCount);
            HeaderField.WriteUInt64(fields, HeaderField.SnapshotsOffset - HeaderField.RefcountTableOffset, (ulong)snapshots << _geometry.ClusterBits);
        }
        await writer.WriteHeaderAsync(HeaderField.RefcountTableOffset, fields);
    }

    /// <summary>Finds places for the blocks, then for a table that is long enough for all of them.</summary>
    private (long Table, int TableClusters) Place()
    {
        foreach (long page in _references.PageIndexes)
            Cover(page << ReferenceCounts.PageBits);
        foreach (long cluster in _taken)
            Cover(cluster);
        PlaceBlocks();
        int entriesPerCluster = _geometry.ClusterBytes / sizeof(ulong);
        while (true)
        {
            int clusters = (int)((_lastRange + entriesPerCluster) / entriesPerCluster);
            if ((long)clusters << _geometry.ClusterBits > ClusterGeometry.MaxRefcountTableBytes)
                throw new RepairFailedException($"'{file.Name}' can't be repaired: its refcount table would exceed 8 MiB; use qemu-img convert");
            long table = Take(clusters);
            for (int i = 0; i < clusters; i++)
                Cover(table + i);
            PlaceBlocks();
            if (_lastRange < (long)clusters * entriesPerCluster)
                return (table, clusters);
            for (int i = 0; i < clusters; i++)
                _taken.Remove(table + i);
        }
    }

    /// <summary>Sees to it that a cluster has a refcount.</summary>
    private void Cover(long cluster)
    {
        long range = cluster >> _geometry.RefcountBlockBits;
        if (!_blocks.ContainsKey(range))
            _unplaced.Add(range);
        _lastRange = Math.Max(_lastRange, range);
    }

    private void PlaceBlocks()
    {
        long cluster = 0;
        // A block goes into its own range if there is room, so that it counts itself; else into a later one, which then needs one, too.
        while (_unplaced.Count > 0)
        {
            long range = _unplaced.Min;
            _unplaced.Remove(range);
            cluster = Math.Max(cluster, range << _geometry.RefcountBlockBits);
            while (!IsFree(cluster))
                cluster++;
            _taken.Add(cluster);
            _blocks.Add(range, cluster);
            Cover(cluster);
        }
    }

    /// <summary>Takes the first neighbouring clusters that are free.</summary>
    private long Take(long count)
    {
        long first = 0;
        for (long cluster = 0; cluster - first < count; cluster++)
        {
            if (!IsFree(cluster))
                first = cluster + 1;
        }
        for (long i = 0; i < count; i++)
            _taken.Add(first + i);
        return first;
    }

    private bool IsFree(long cluster) => cluster > 0 && _references[cluster] == 0 && !_taken.Contains(cluster) && !_occupied.Contains(cluster);

    private byte[] Encode(long range)
    {
        byte[] block = new byte[_geometry.ClusterBytes];
        long first = range << _geometry.RefcountBlockBits;
        foreach (long cluster in _references.ReferencedClusters(first, first + _geometry.RefcountBlockEntryCount))
            RefcountBlock.Set(block, _geometry.RefcountOrder, (int)(cluster - first), _references[cluster]);
        foreach (long cluster in _taken.GetViewBetween(first, first + _geometry.RefcountBlockEntryCount - 1))
            RefcountBlock.Set(block, _geometry.RefcountOrder, (int)(cluster - first), 1);
        return block;
    }

    private byte[] EncodeTable(int clusters)
    {
        byte[] table = new byte[(long)clusters << _geometry.ClusterBits];
        foreach ((long range, long block) in _blocks)
        {
            BinaryPrimitives.WriteUInt64BigEndian(
                table.AsSpan((int)range * sizeof(ulong)), RefcountTableEntry.To(new HostOffset(block << _geometry.ClusterBits)).Raw);
        }
        return table;
    }

    /// <summary>Counts at least what is stored: references that could not be followed may be behind it.</summary>
    private async Task KeepStoredAsync()
    {
        for (long cluster = 0; cluster < _references.ClusterCount; cluster++)
            _references.RaiseTo(cluster, await examination.Refcounts.GetRefcountAsync(cluster));
    }
}
