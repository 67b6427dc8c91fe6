using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Qcow2.Metadata;

/// <summary>
/// Refcounts as they are to be once the header leads to them. Changed blocks are copies with places of their own, in
/// clusters that are free until then, and so is what is reserved here: whatever happens before the header is written,
/// nothing has changed (docs/consistency.md, "Snapshots"). The image is settled, and whoever makes one has it alone.
/// </summary>
internal sealed class RefcountRevision(
    IBlockFile file, ClusterGeometry geometry, PointerTable table, TableCache stored, ClusterAllocator allocator, MetadataMap map)
{
    private const long MaxResidentBytes = 64L << 20;
    private readonly int _maxResidentCount = (int)Math.Max(4, MaxResidentBytes >> geometry.ClusterBits);
    private readonly int _order = geometry.RefcountOrder;
    private readonly Dictionary<int, Block> _blocks = [];
    private readonly Queue<Block> _unplaced = new();
    private readonly SortedDictionary<int, ulong[]> _lost = [];
    private int _residentCount;

    /// <summary>Whether changed blocks are on their way to places: none leaves memory meanwhile.</summary>
    private bool _isPlacing;
    private HostCluster _searchFrom = allocator.SearchFrom;

    /// <summary>Where the refcount table is to be.</summary>
    public HostOffset TableOffset { get; private set; } = table.Offset;

    /// <summary>The refcount table as it is to be, when it moves, or null.</summary>
    public ulong[]? TableEntries { get; private set; }

    /// <summary>The refcount of a cluster without the reference that it lost here, if no other is left.</summary>
    public async ValueTask<ulong> GetAsync(HostCluster cluster)
    {
        Block block = await LoadInUseAsync(cluster);
        int index = geometry.RefcountBlockIndex(cluster);
        return IsLost(block, index) ? 0 : RefcountBlock.Get(block.Bytes, _order, index);
    }

    /// <summary>Adds a reference to each of some neighbouring clusters that are in use.</summary>
    /// <exception cref="RefcountOverflowException">One of them has the largest refcount already.</exception>
    /// <exception cref="MetadataDamagedException">One of them is not in use.</exception>
    public async ValueTask RaiseAsync(HostCluster first, long count)
    {
        for (HostCluster end = first + count; first.Index < end.Index;)
        {
            Block block = await LoadInUseAsync(first);
            for (int index = geometry.RefcountBlockIndex(first);
                index < geometry.RefcountBlockEntryCount && first.Index < end.Index; index++, first += 1)
            {
                if (IsLost(block, index))
                {
                    _lost[block.TableIndex][index >> 6] &= ~(1UL << index);
                    continue;
                }
                ulong refcount = RefcountBlock.Get(block.Bytes, _order, index);
                if (refcount == 0)
                    throw new MetadataDamagedException($"{first} was in use with refcount 0");
                if (refcount == geometry.MaxRefcount)
                    throw new RefcountOverflowException(first);
                Set(block, index, refcount + 1);
            }
        }
    }

    /// <summary>
    /// Takes a reference from each of some neighbouring clusters. Who loses the last one keeps its refcount of 1 for now
    /// and is one of <see cref="LostRuns"/>.
    /// </summary>
    /// <param name="first">The first of them.</param>
    /// <param name="count">How many.</param>
    /// <param name="role">Name of the metadata that lies in them, or null for data.</param>
    /// <exception cref="MetadataDamagedException">One is not in use, or would set free what holds other metadata.</exception>
    public async ValueTask LowerAsync(HostCluster first, long count, string? role)
    {
        for (HostCluster end = first + count; first.Index < end.Index;)
        {
            Block block = await LoadInUseAsync(first);
            for (int index = geometry.RefcountBlockIndex(first);
                index < geometry.RefcountBlockEntryCount && first.Index < end.Index; index++, first += 1)
            {
                ulong refcount = IsLost(block, index) ? 0 : RefcountBlock.Get(block.Bytes, _order, index);
                if (refcount == 0)
                    throw new MetadataDamagedException($"{first} was in use with refcount 0");
                if (refcount > 1)
                    Set(block, index, refcount - 1);
                else
                    Lose(block, index, first, role);
            }
        }
    }

    /// <summary>Reserves neighbouring clusters with refcount 1. They are free, and stay it if nothing comes of this.</summary>
    /// <exception cref="NoSpaceException">The file has reached the format's limit.</exception>
    public async ValueTask<HostCluster> ReserveAsync(long count)
    {
        HostCluster start = _searchFrom;
        HostCluster at = start;
        for (long found = 0; found < count;)
        {
            Block block = await LoadAsync(geometry.RefcountTableIndex(at));
            int from = geometry.RefcountBlockIndex(at);
            int free = RefcountBlock.IndexOfFree(block.Bytes, _order, from);
            bool goesOn = free == from && found > 0;
            if (free < 0)
            {
                (at, found) = (at + (geometry.RefcountBlockEntryCount - from), 0);
                continue;
            }
            if (!goesOn)
                (start, found) = (at + (free - from), 0);
            int end = free + 1;
            while (end < geometry.RefcountBlockEntryCount && found + end - free < count && RefcountBlock.Get(block.Bytes, _order, end) == 0)
                end++;
            found += end - free;
            at = start + found;
        }
        if ((start.Index + count) << geometry.ClusterBits >= ClusterGeometry.HostOffsetLimit)
            throw new NoSpaceException($"'{file.Name}' has reached the largest size that the format allows");
        if (map.Find(start, count) is { } metadata)
            throw new MetadataDamagedException($"Preventing invalid allocation of {metadata} at offset {geometry.OffsetOf(start)}");
        await SetReservedAsync(start, count, 1);
        allocator.NoteUsed(start, count); // what is about to be written there stays there, whatever comes of this
        if (count == 1)
            _searchFrom = start + 1;
        return start;
    }

    /// <summary>Gives a cluster that was reserved here and that nothing reached its refcount.</summary>
    public ValueTask SetReservedAsync(HostCluster cluster, ulong refcount) => SetReservedAsync(cluster, 1, refcount);

    /// <summary>Writes the changed blocks, and the refcount table that leads to them, to their new places.</summary>
    /// <exception cref="NoSpaceException">The refcount table would be too large.</exception>
    public async Task WriteAsync()
    {
        if (_unplaced.Count == 0 && !_blocks.Values.Any(block => block.IsChanged))
            return;
        int entriesPerCluster = geometry.ClusterBytes / sizeof(ulong);
        await LowerAsync(geometry.ClusterOf(table.Offset), table.Count / entriesPerCluster, MetadataMap.RefcountTable);
        int count = table.Count;
        HostCluster place;
        while (true)
        {
            place = await ReserveAsync(count / entriesPerCluster);
            await PlaceAsync();
            int neededCount = _blocks.Values.Where(block => block.IsChanged).Max(block => block.TableIndex) + 1;
            if (neededCount <= count)
                break;
            await SetReservedAsync(place, count / entriesPerCluster, 0);
            count = (neededCount + (neededCount / 2) + entriesPerCluster - 1) / entriesPerCluster * entriesPerCluster;
            if (count * (long)sizeof(ulong) > ClusterGeometry.MaxRefcountTableBytes)
                throw new NoSpaceException($"'{file.Name}' can't grow: its refcount table would exceed 8 MiB; use larger clusters");
        }
        await WriteResidentAsync();
        TableOffset = geometry.OffsetOf(place);
        TableEntries = new ulong[count];
        for (int index = 0; index < table.Count; index++)
            TableEntries[index] = table[index];
        foreach (Block block in _blocks.Values.Where(block => block.IsChanged))
            TableEntries[block.TableIndex] = RefcountTableEntry.To(geometry.OffsetOf(block.Place)).Raw;
        await file.WriteAsync(TableOffset.Bytes, PointerTable.Store(TableEntries));
    }

    /// <summary>Clusters that have a refcount of 1 and no reference any more, in order.</summary>
    public IEnumerable<(HostCluster First, long Count)> LostRuns()
    {
        foreach ((int tableIndex, ulong[] bits) in _lost)
        {
            var start = new HostCluster((long)tableIndex << geometry.RefcountBlockBits);
            for (int index = 0; index < geometry.RefcountBlockEntryCount;)
            {
                if (bits[index >> 6] == 0)
                {
                    index = (index | 63) + 1;
                    continue;
                }
                int end = index;
                while (end < geometry.RefcountBlockEntryCount && (bits[end >> 6] >> end & 1) != 0)
                    end++;
                if (end > index)
                    yield return (start + index, end - index);
                index = end + 1;
            }
        }
    }

    /// <summary>Blocks that moved: their old places, of those that had one, and their new ones.</summary>
    public IEnumerable<(HostOffset? Old, HostOffset New)> MovedBlocks() => _blocks.Values.Where(block => block.IsChanged)
        .Select(block => (block.Stored, geometry.OffsetOf(block.Place)));

    private bool IsLost(Block block, int index) =>
        _lost.TryGetValue(block.TableIndex, out ulong[]? bits) && (bits[index >> 6] >> index & 1) != 0;

    private void Lose(Block block, int index, HostCluster cluster, string? role)
    {
        if (map.Find(cluster) is { } name && name != role)
            throw new MetadataDamagedException($"Preventing invalid free of metadata ({name}) at offset {geometry.OffsetOf(cluster)}");
        if (!_lost.TryGetValue(block.TableIndex, out ulong[]? bits))
            _lost.Add(block.TableIndex, bits = new ulong[(geometry.RefcountBlockEntryCount + 63) / 64]);
        bits[index >> 6] |= 1UL << index;
    }

    private void Set(Block block, int index, ulong refcount)
    {
        RefcountBlock.Set(block.Bytes, _order, index, refcount);
        block.IsDirty = true;
        if (block.IsChanged)
            return;
        block.IsChanged = true;
        _unplaced.Enqueue(block);
    }

    private async ValueTask SetReservedAsync(HostCluster first, long count, ulong refcount)
    {
        for (long i = 0; i < count; i++)
        {
            Block block = await LoadAsync(geometry.RefcountTableIndex(first + i));
            Set(block, geometry.RefcountBlockIndex(first + i), refcount);
        }
    }

    /// <summary>Gives every changed block a place; that changes blocks, too.</summary>
    private async ValueTask PlaceAsync()
    {
        _isPlacing = true;
        while (_unplaced.TryDequeue(out Block? block))
        {
            block.Place = await ReserveAsync(1);
            if (block.Stored is { } old)
                await LowerAsync(geometry.ClusterOf(old), 1, MetadataMap.RefcountBlock);
        }
        _isPlacing = false;
    }

    private ValueTask<Block> LoadInUseAsync(HostCluster cluster) => cluster.Index >> geometry.RefcountBlockBits < table.Count
        ? LoadAsync(geometry.RefcountTableIndex(cluster))
        : throw new MetadataDamagedException($"{cluster} was in use with refcount 0");

    private ValueTask<Block> LoadAsync(int tableIndex) =>
        _blocks.TryGetValue(tableIndex, out Block? block) && block.IsResident ? new ValueTask<Block>(block) : LoadSlowlyAsync(tableIndex);

    private async ValueTask<Block> LoadSlowlyAsync(int tableIndex)
    {
        if (_residentCount >= _maxResidentCount && !_isPlacing)
            await LetGoAsync();
        if (!_blocks.TryGetValue(tableIndex, out Block? block))
            _blocks.Add(tableIndex, block = new Block(tableIndex));
        byte[] bytes = new byte[geometry.ClusterBytes];
        if (block.IsChanged)
        {
            await file.ReadAsync(geometry.OffsetOf(block.Place).Bytes, bytes);
        }
        else if (tableIndex < table.Count && new RefcountTableEntry(table[tableIndex]) is { IsAllocated: true } entry)
        {
            block.Stored = allocator.ValidBlock(entry, tableIndex);
            using TablePin pin = await stored.PinAsync(entry.Block);
            pin.Table.Bytes.CopyTo(bytes);
        }
        block.Bytes = bytes;
        _residentCount++;
        return block;
    }

    /// <summary>Lets all blocks go from memory; those that changed are then in the file, where nothing leads to them yet.</summary>
    private async ValueTask LetGoAsync()
    {
        await PlaceAsync();
        await WriteResidentAsync();
        foreach (Block block in _blocks.Values)
            block.Bytes = null!;
        _residentCount = 0;
    }

    private async ValueTask WriteResidentAsync()
    {
        foreach (Block block in _blocks.Values.Where(block => block.IsDirty))
        {
            Invariant.Assert(block.Place.Index > 0, "a changed refcount block has a place before it is written");
            await file.WriteAsync(geometry.OffsetOf(block.Place).Bytes, block.Bytes);
            block.IsDirty = false;
        }
    }

    private sealed class Block(int tableIndex)
    {
        public int TableIndex => tableIndex;

        /// <summary>Null while it is not in memory.</summary>
        public byte[] Bytes { get; set; } = null!;

        public bool IsResident => Bytes is not null;

        /// <summary>Where it lies on disk now, or null if it is new.</summary>
        public HostOffset? Stored { get; set; }

        /// <summary>Where it will lie, if it is changed.</summary>
        public HostCluster Place { get; set; }

        public bool IsChanged { get; set; }

        /// <summary>Whether it differs from what was written to its new place.</summary>
        public bool IsDirty { get; set; }
    }
}

/// <summary>A refcount can't grow any more.</summary>
internal sealed class RefcountOverflowException(HostCluster cluster) : Exception($"{cluster} has the largest refcount that the image can hold");
