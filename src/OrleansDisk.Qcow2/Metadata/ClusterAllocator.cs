using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Qcow2.Metadata;

/// <summary>Neighbouring host clusters that were just reserved: each has refcount 1 and nothing points to it.</summary>
/// <param name="First">The first of them.</param>
/// <param name="Count">How many, at least 1.</param>
/// <param name="IsFresh">They lie past everything the file ever held, so what is not written in them reads as zeros.</param>
internal readonly record struct HostRun(HostCluster First, int Count, bool IsFresh);

/// <summary>
/// Refcounts and the search for free clusters, first fit. Raising a refcount in the cache is the reservation. Refcounts
/// in the cache are lowered only when nothing on disk can point to the cluster, so that a refcount block may be written
/// at any time (docs/consistency.md, W1 and W3).
/// </summary>
internal sealed class ClusterAllocator
{
    private readonly IBlockFile _file;
    private readonly ClusterGeometry _geometry;
    private readonly PointerTable _table;
    private readonly TableCache _blocks;
    private readonly MetadataMap _map;
    private readonly FreedClusters _freed;
    private bool _canPunchHoles = true;

    /// <summary>Clusters whose bytes are on their way back to the host: nobody may put new ones there.</summary>
    private (HostCluster First, int Count) _punched;

    /// <summary>No cluster before this one is free.</summary>
    private HostCluster _searchFrom;

    /// <summary>No cluster from this one on was ever written.</summary>
    private HostCluster _freshFrom;

    public ClusterAllocator(IBlockFile file, ClusterGeometry geometry, PointerTable table, TableCache blocks,
        MetadataMap map, FreedClusters freed)
    {
        (_file, _geometry, _table, _blocks, _map, _freed) = (file, geometry, table, blocks, map, freed);
        _freshFrom = new HostCluster(geometry.ClusterCount(file.LengthBytes));
    }

    /// <summary>No cluster before this one is free.</summary>
    public HostCluster SearchFrom => _searchFrom;

    /// <summary>Told of every cluster whose refcount came down to 0.</summary>
    public Action<HostCluster>? Freed { get; set; }

    /// <summary>Reserves from 1 to <paramref name="maxCount"/> neighbouring clusters.</summary>
    /// <param name="maxCount">How many are wanted.</param>
    /// <param name="what">What they are for, in QEMU's words.</param>
    /// <exception cref="NoSpaceException">The refcount table has reached the format's limit.</exception>
    /// <exception cref="MetadataDamagedException">A refcount block lies where none can, or metadata has no refcount.</exception>
    public ValueTask<HostRun> ReserveAsync(int maxCount, string what = "data cluster") =>
        !_blocks.IsFull && TryReserve(maxCount, what, out HostRun run, out _)
            ? new ValueTask<HostRun>(run) : ReserveSlowlyAsync(maxCount, what);

    /// <summary>
    /// Reserves neighbouring clusters past all that the file ever held: they read as zeros. Nobody else reserves or frees meanwhile.
    /// </summary>
    public async ValueTask<HostRun> ReserveFreshAsync(int maxCount)
    {
        HostCluster before = _searchFrom;
        if (_searchFrom.Index < _freshFrom.Index)
            _searchFrom = _freshFrom;
        HostRun run = await ReserveAsync(maxCount);
        if (before.Index < _freshFrom.Index)
            _searchFrom = before;
        Invariant.Assert(run.IsFresh, "clusters past the end of the file were never written");
        return run;
    }

    /// <summary>The file was cut here: what lies behind reads as zeros again.</summary>
    public void NoteCut(HostCluster end)
    {
        _freshFrom = end;
        if (_searchFrom.Index > end.Index)
            _searchFrom = end;
    }

    /// <summary>Reserves exactly <paramref name="count"/> neighbouring clusters.</summary>
    public async ValueTask<HostRun> ReserveExactlyAsync(int count)
    {
        var passedOver = new List<HostRun>();
        HostRun run = await ReserveAsync(count);
        while (run.Count < count)
        {
            HostRun next = await ReserveAsync(count - run.Count);
            if (next.First == run.First + run.Count)
            {
                run = new HostRun(run.First, run.Count + next.Count, run.IsFresh && next.IsFresh);
                continue;
            }
            passedOver.Add(run);
            run = next;
        }
        foreach (HostRun unused in passedOver)
            await AbandonAsync(unused.First, unused.Count);
        return run;
    }

    /// <summary>Adds a reference to a cluster that is in use.</summary>
    /// <param name="cluster">The cluster.</param>
    /// <param name="isWanted">Asked when the refcount is about to be raised, for who can't be sure that the cluster stays in use until then.</param>
    /// <returns>
    /// False, and nothing has changed, when the refcount can't grow any more, or the reference is not wanted, or the
    /// cluster's last reference is just going.
    /// </returns>
    /// <exception cref="MetadataDamagedException">It is not in use.</exception>
    public async ValueTask<bool> TryRaiseAsync(HostCluster cluster, Func<bool>? isWanted = null)
    {
        using TablePin pin = await PinBlockAsync(cluster);
        if (isWanted?.Invoke() == false)
            return false;
        int index = _geometry.RefcountBlockIndex(cluster);
        ulong refcount = RefcountBlock.Get(pin.Table.Bytes, _geometry.RefcountOrder, index);
        if (refcount == 0)
            throw new MetadataDamagedException($"{cluster} was in use with refcount 0");
        if (refcount == _geometry.MaxRefcount || IsBeingPunched(cluster))
            return false;
        _blocks.SetRefcount(pin.Table, _geometry.RefcountOrder, index, refcount + 1);
        return true;
    }

    /// <summary>The refcount of a cluster that is in use.</summary>
    public async ValueTask<ulong> ReadRefcountAsync(HostCluster cluster)
    {
        using TablePin pin = await PinBlockAsync(cluster);
        return RefcountBlock.Get(pin.Table.Bytes, _geometry.RefcountOrder, _geometry.RefcountBlockIndex(cluster));
    }

    /// <summary>Gives back reserved clusters to which nothing ever pointed.</summary>
    public async ValueTask AbandonAsync(HostCluster first, int count)
    {
        for (int i = 0; i < count; i++)
        {
            using TablePin pin = await PinBlockAsync(first + i);
            Lower(pin.Table, first + i);
        }
    }

    /// <summary>
    /// Lowers the refcount of clusters that lost a reference; those that come down to 0 go back to the host, if asked
    /// for, before anyone can reserve them again.
    /// </summary>
    public async ValueTask ReleaseAsync(FreedRun run)
    {
        for (long done = 0; done < run.Count;)
        {
            HostCluster first = run.First + done;
            using TablePin pin = await PinBlockAsync(first);
            int index = _geometry.RefcountBlockIndex(first);
            int count = (int)Math.Min(run.Count - done, _geometry.RefcountBlockEntryCount - index);
            if (run.Discard && _canPunchHoles)
                await PunchUnsharedAsync(pin.Table, first, count);
            for (int i = 0; i < count; i++)
                Lower(pin.Table, first + i);
            done += count;
        }
    }

    private async ValueTask<HostRun> ReserveSlowlyAsync(int maxCount, string what)
    {
        if (_blocks.IsFull)
            await _blocks.MakeRoomAsync();
        bool done = TryReserve(maxCount, what, out HostRun run, out HostOffset missingBlock);
        while (!done)
        {
            // Held while it is searched: in a full cache it would be the first to go.
            using TablePin pin = await _blocks.PinAsync(missingBlock);
            done = TryReserve(maxCount, what, out run, out missingBlock);
        }
        return run;
    }

    /// <summary>Synchronous, so that nothing changes between finding clusters and reserving them.</summary>
    private bool TryReserve(int maxCount, string what, out HostRun run, out HostOffset missingBlock)
    {
        run = default;
        missingBlock = default;
        HostCluster freshFrom = _freshFrom; // blocks that are made meanwhile lie behind it, and what is before them stays unwritten
        while (true)
        {
            int tableIndex = _geometry.RefcountTableIndex(_searchFrom);
            if (tableIndex >= _table.Count)
                GrowTable(tableIndex + 1);
            var entry = new RefcountTableEntry(_table[tableIndex]);
            if (!entry.IsAllocated)
            {
                CreateBlock(tableIndex, maxCount);
                continue;
            }
            missingBlock = ValidBlock(entry, tableIndex);
            if (!_blocks.TryGet(missingBlock, out CachedTable block))
                return false;
            int order = _geometry.RefcountOrder;
            int index = RefcountBlock.IndexOfFree(block.Bytes, order, _geometry.RefcountBlockIndex(_searchFrom));
            var rangeStart = new HostCluster((long)tableIndex << _geometry.RefcountBlockBits);
            if (index < 0)
            {
                _searchFrom = rangeStart + _geometry.RefcountBlockEntryCount;
                continue;
            }
            run = CountRun(block, rangeStart + index, index, maxCount, freshFrom);
            if (_map.Find(run.First, run.Count) is { } metadata)
            {
                throw new MetadataDamagedException(run.First.Index == 0 ? $"Preventing invalid allocation of {what} at offset 0"
                    : $"Preventing invalid write on metadata (overlaps with {metadata})");
            }
            for (int i = 0; i < run.Count; i++)
                _blocks.SetRefcount(block, order, index + i, 1);
            _searchFrom = run.First + run.Count;
            NoteUsed(run.First, run.Count);
            return true;
        }
    }

    private HostRun CountRun(CachedTable block, HostCluster first, int index, int maxCount, HostCluster freshFrom)
    {
        bool isFresh = first.Index >= freshFrom.Index;
        int limit = Math.Min(maxCount, _geometry.RefcountBlockEntryCount - index);
        if (!isFresh)
            limit = (int)Math.Min(limit, freshFrom.Index - first.Index);
        int count = 1;
        while (count < limit && RefcountBlock.Get(block.Bytes, _geometry.RefcountOrder, index + count) == 0)
            count++;
        if ((first.Index + count) << _geometry.ClusterBits >= ClusterGeometry.HostOffsetLimit)
            throw new NoSpaceException($"'{_file.Name}' has reached the largest size that the format allows");
        return new HostRun(first, count, isFresh);
    }

    /// <summary>Clusters were, or are about to be, written: what is not written in them is no zeros any more.</summary>
    public void NoteUsed(HostCluster first, long count)
    {
        if (first.Index + count > _freshFrom.Index)
            _freshFrom = first + count;
    }

    /// <summary>
    /// Makes the block of a range that has none, inside that range, so that it counts itself, and behind the clusters that are
    /// wanted now: they lie next to those before.
    /// </summary>
    private void CreateBlock(int tableIndex, int wantedCount)
    {
        var start = new HostCluster((long)tableIndex << _geometry.RefcountBlockBits);
        int count = _geometry.RefcountBlockEntryCount;
        int at = Math.Min(wantedCount, count - 1);
        int tried = 0;
        while (tried < count && _map.Find(start + at) is not null)
        {
            at = (at + 1) % count;
            tried++;
        }
        if (tried == count)
            throw new MetadataDamagedException("No room for a refcount block: metadata fills its range");
        AddBlock(tableIndex, start + at, start + at, 1);
        NoteUsed(start + at, 1);
    }

    /// <summary>Adds a block in which <paramref name="count"/> clusters from <paramref name="first"/> have refcount 1.</summary>
    private void AddBlock(int tableIndex, HostCluster block, HostCluster first, int count)
    {
        HostOffset offset = _geometry.OffsetOf(block);
        var table = new CachedTable(offset, new byte[_geometry.ClusterBytes]);
        table.MarkAllDirty();
        int firstIndex = _geometry.RefcountBlockIndex(first);
        for (int i = 0; i < count; i++)
            table.SetRefcount(_geometry.RefcountOrder, firstIndex + i, 1);
        _blocks.Add(table);
        _map.AddRefcountBlock(offset);
        _table[tableIndex] = RefcountTableEntry.To(offset).Raw;
    }

    /// <summary>
    /// Makes a longer refcount table just past the clusters that the old one covers, with the blocks that count it
    /// behind it. The header follows at the next write-back; until then the old table is what a crash finds.
    /// </summary>
    private void GrowTable(int neededCount)
    {
        int entriesPerCluster = _geometry.ClusterBytes / sizeof(ulong);
        long newCount = Math.Max(neededCount, _table.Count + (_table.Count / 2L));
        long tableClusters;
        long blockCount = 1;
        while (true)
        {
            newCount = (newCount + entriesPerCluster - 1) / entriesPerCluster * entriesPerCluster;
            tableClusters = newCount / entriesPerCluster;
            long covered = blockCount << _geometry.RefcountBlockBits;
            if (tableClusters + blockCount > covered)
                blockCount++;
            else if (_table.Count + blockCount > newCount)
                newCount = _table.Count + blockCount;
            else
                break;
        }
        if (newCount * sizeof(ulong) > ClusterGeometry.MaxRefcountTableBytes)
            throw new NoSpaceException($"'{_file.Name}' can't grow: its refcount table would exceed 8 MiB; use larger clusters");

        int oldCount = _table.Count;
        HostCluster oldStart = _geometry.ClusterOf(_table.Offset);
        var start = new HostCluster((long)oldCount << _geometry.RefcountBlockBits);
        _table.Move(_geometry.OffsetOf(start), (int)newCount);
        long used = tableClusters + blockCount;
        for (int i = 0; i < blockCount; i++)
        {
            HostCluster rangeStart = start + ((long)i << _geometry.RefcountBlockBits);
            int usedInRange = (int)Math.Min(_geometry.RefcountBlockEntryCount, start.Index + used - rangeStart.Index);
            AddBlock(oldCount + i, start + tableClusters + i, rangeStart, usedInRange);
        }
        _map.SetRange(MetadataMap.RefcountTable, _table.Offset, newCount * sizeof(ulong));
        NoteUsed(start, used);
        _freed.Add(oldStart, oldCount / entriesPerCluster, discard: false);
    }

    private ValueTask<TablePin> PinBlockAsync(HostCluster cluster)
    {
        int tableIndex = _geometry.RefcountTableIndex(cluster);
        RefcountTableEntry entry = tableIndex < _table.Count ? new RefcountTableEntry(_table[tableIndex]) : default;
        if (!entry.IsAllocated)
            throw new MetadataDamagedException($"{cluster} has no refcount block but is in use");
        return _blocks.PinAsync(ValidBlock(entry, tableIndex));
    }

    /// <summary>The place of a refcount block.</summary>
    /// <exception cref="MetadataDamagedException">None can lie there.</exception>
    public HostOffset ValidBlock(RefcountTableEntry entry, int tableIndex)
    {
        if (!_geometry.IsAligned(entry.Block.Bytes))
            throw new MetadataDamagedException($"Refblock offset {entry.Block} unaligned (reftable index: 0x{tableIndex:x})");
        if (entry.Block.Bytes < 0 || entry.Block.Bytes >= ClusterGeometry.HostOffsetLimit)
            throw new MetadataDamagedException($"Refblock offset {entry.Block} out of range (reftable index: 0x{tableIndex:x})");
        return entry.Block;
    }

    private void Lower(CachedTable block, HostCluster cluster)
    {
        int index = _geometry.RefcountBlockIndex(cluster);
        ulong refcount = RefcountBlock.Get(block.Bytes, _geometry.RefcountOrder, index);
        if (refcount == 0)
            throw new MetadataDamagedException($"{cluster} was in use with refcount 0");
        _blocks.SetRefcount(block, _geometry.RefcountOrder, index, refcount - 1);
        if (refcount > 1)
            return;
        Freed?.Invoke(cluster);
        if (cluster.Index < _searchFrom.Index)
            _searchFrom = cluster;
    }

    private async ValueTask PunchUnsharedAsync(CachedTable block, HostCluster first, int count)
    {
        int index = _geometry.RefcountBlockIndex(first);
        for (int i = 0; i < count;)
        {
            int end = i;
            while (end < count && RefcountBlock.Get(block.Bytes, _geometry.RefcountOrder, index + end) == 1)
                end++;
            if (end > i)
            {
                await PunchAsync(first + i, end - i);
            }
            i = end + 1;
        }
    }

    private async ValueTask PunchAsync(HostCluster first, int count)
    {
        _punched = (first, count);
        try
        {
            _canPunchHoles = await _file.PunchHoleAsync(_geometry.OffsetOf(first).Bytes, (long)count << _geometry.ClusterBits);
        }
        catch (BlockFileException)
        {
            // The space stays with the image, which may use it again: nothing is wrong with that.
        }
        finally
        {
            _punched = default;
        }
    }

    private bool IsBeingPunched(HostCluster cluster) =>
        cluster.Index >= _punched.First.Index && cluster.Index < _punched.First.Index + _punched.Count;
}
