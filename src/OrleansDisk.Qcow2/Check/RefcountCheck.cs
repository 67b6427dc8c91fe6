using System.Buffers.Binary;
using OrleansDisk.Qcow2.Check.Repair;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Qcow2.Check;

/// <summary>Counts the refcount table and its blocks, and compares every stored refcount with the references found.</summary>
internal sealed class RefcountCheck(IBlockFile file, Header header, ReferenceCounts references, CheckLog log)
{
    private const int CachedPageBytes = 4096;
    private const int MaxCachedPageCount = 4096;

    private readonly ClusterGeometry _geometry = header.Geometry;
    private readonly TableReader _tableReader = new(file);
    private readonly TableReader _blockReader = new(file);
    private readonly Dictionary<long, byte[]> _pages = [];
    private readonly HashSet<long> _comparedBlocks = [];
    private readonly HashSet<long> _soundRanges = [];
    private long _lastUsedCluster = -1;

    /// <summary>Bytes up to the end of the last cluster with a refcount or a reference.</summary>
    public long ImageEndOffset => (_lastUsedCluster + 1) << _geometry.ClusterBits;

    /// <summary>Whether refcounts can only be put right by new blocks and a new table.</summary>
    public bool NeedsRebuild { get; private set; }

    /// <summary>Whether the refcounts that are stored now are the references that were counted.</summary>
    public bool IsRight { get; private set; } = true;

    private enum BlockState
    {
        None,
        Sound,
        Unaligned,
        OutsideImage,
    }

    /// <summary>Counts the references to the refcount table and its blocks.</summary>
    /// <param name="extend">
    /// Makes the file long enough for a block outside of it, or says that it can't; null when nothing is to be repaired.
    /// </param>
    public async Task CountTableAsync(Func<HostOffset, ValueTask<bool>>? extend)
    {
        long bytes = (long)header.RefcountTableClusters * _geometry.ClusterBytes;
        references.Add(header.RefcountTable.Bytes, bytes, ClusterUse.RefcountTable);
        await ForEachEntryAsync(async (index, entry) =>
        {
            if ((entry.Raw & RefcountTableEntry.ReservedMask) != 0)
            {
                log.Corruption($"ERROR refcount table entry {index} has reserved bits set");
                NeedsRebuild = true;
                return;
            }
            switch (StateOf(entry))
            {
                case BlockState.Unaligned:
                    log.Corruption($"ERROR refcount block {index} is not cluster aligned; refcount table entry corrupted");
                    NeedsRebuild = true;
                    break;
                case BlockState.OutsideImage when extend is null:
                    log.Corruption($"ERROR refcount block {index} is outside image");
                    break;
                case BlockState.OutsideImage:
                    log.Progress($"Repairing refcount block {index} is outside image");
                    await ExtendAsync(index, entry, extend);
                    break;
                case BlockState.Sound:
                    CountBlock(index, entry);
                    break;
            }
        });
    }

    /// <summary>Compares stored refcounts with the references counted; call it when all of them are.</summary>
    /// <param name="kinds">Which refcounts are put right where they are stored.</param>
    /// <param name="writer">Writes them.</param>
    public async Task CompareAsync(RepairKinds kinds, RepairWriter? writer)
    {
        _comparedBlocks.Clear();
        IsRight = !NeedsRebuild;
        _lastUsedCluster = -1;
        long compared = 0;
        bool hasGaps = references.PageIndexes.Any(page => !_soundRanges.Contains(page >> (_geometry.RefcountBlockBits - ReferenceCounts.PageBits)));
        await ForEachEntryAsync(async (index, entry) =>
        {
            long first = index << _geometry.RefcountBlockBits;
            long end = Math.Min(first + _geometry.RefcountBlockEntryCount, references.ClusterCount);
            if (first >= end)
                return;
            if (hasGaps)
                CompareWithoutBlock(compared, first);
            compared = end;
            switch (StateOf(entry))
            {
                case BlockState.Unaligned:
                    IsRight = false;
                    log.CheckError($"Can't get refcount for clusters {first} to {end - 1}: Input/output error", end - first);
                    break;
                // Who shares a block is reported already, and can't be right about both ranges.
                case BlockState.Sound when _comparedBlocks.Add(entry.Block.Bytes):
                    await CompareBlockAsync(entry.Block, first, end, kinds, writer);
                    break;
                case BlockState.OutsideImage when hasGaps:
                    CompareWithoutBlock(first, end);
                    break;
            }
        });
        if (hasGaps)
            CompareWithoutBlock(compared, references.ClusterCount);
        _pages.Clear(); // what is stored may have changed
    }

    /// <summary>Reports clusters that serve two purposes though their refcounts are as if that were right.</summary>
    public async Task ReportOverlapsAsync()
    {
        foreach ((long cluster, (ClusterUse used, ClusterUse again)) in references.Overlaps)
        {
            // The sectors of compressed data may reach into a cluster of data: who writes that copies it, since it is shared.
            if ((used, again) is (ClusterUse.Data, ClusterUse.CompressedData) or (ClusterUse.CompressedData, ClusterUse.Data))
                continue;
            // Where the counts differ that was reported; where they agree, only this tells.
            if (await GetRefcountAsync(cluster) == references[cluster])
                log.Corruption($"ERROR cluster {cluster} is used as {Name(used)} and as {Name(again)}");
        }
    }

    /// <summary>The refcount as stored; 0 where no block covers the cluster.</summary>
    public async ValueTask<ulong> GetRefcountAsync(long cluster)
    {
        long index = cluster >> _geometry.RefcountBlockBits;
        if (index >= ((long)header.RefcountTableClusters << (_geometry.ClusterBits - 3)))
            return 0;
        long position = header.RefcountTable.Bytes + (index * sizeof(ulong));
        ReadOnlyMemory<byte> table = await ReadPageAsync(position);
        var entry = new RefcountTableEntry(
            BinaryPrimitives.ReadUInt64BigEndian(table.Span[(int)(position & (CachedPageBytes - 1))..]));
        if (StateOf(entry) != BlockState.Sound)
            return 0;
        long inBlock = cluster & (_geometry.RefcountBlockEntryCount - 1);
        long refcountAt = entry.Block.Bytes + ((inBlock << _geometry.RefcountOrder) >> 3);
        ReadOnlyMemory<byte> page = await ReadPageAsync(refcountAt);
        long refcountsPerPage = (CachedPageBytes * 8) >> _geometry.RefcountOrder;
        long start = entry.Block.Bytes & (CachedPageBytes - 1);
        long inPage = inBlock + ((start * 8) >> _geometry.RefcountOrder);
        return RefcountBlock.Get(page.Span, _geometry.RefcountOrder, (int)(inPage % refcountsPerPage));
    }

    /// <summary>Where the table's blocks lie, sound ones and others: what new ones must not be written over.</summary>
    public async Task<HashSet<long>> OccupiedAsync()
    {
        var clusters = new HashSet<long>();
        long tableBytes = (long)header.RefcountTableClusters * _geometry.ClusterBytes;
        AddClusters(header.RefcountTable.Bytes, _tableReader.ReadableBytes(header.RefcountTable.Bytes, tableBytes));
        await ForEachEntryAsync((_, entry) =>
        {
            if (entry.IsAllocated && entry.Raw <= long.MaxValue)
                AddClusters(entry.Block.Bytes, _tableReader.ReadableBytes(entry.Block.Bytes, _geometry.ClusterBytes));
            return ValueTask.CompletedTask;
        });
        return clusters;

        void AddClusters(long offset, long bytes)
        {
            for (long cluster = offset >> _geometry.ClusterBits; bytes > 0 && cluster <= (offset + bytes - 1) >> _geometry.ClusterBits; cluster++)
                clusters.Add(cluster);
        }
    }

    private async ValueTask ExtendAsync(long index, RefcountTableEntry entry, Func<HostOffset, ValueTask<bool>> extend)
    {
        if (await extend(entry.Block))
        {
            log.CorruptionsFixed++;
            CountBlock(index, entry);
            return;
        }
        // A new table will not have it.
        log.Counts = log.Counts with { Corruptions = log.Counts.Corruptions + 1 };
        NeedsRebuild = true;
    }

    private void CountBlock(long index, RefcountTableEntry entry)
    {
        if (!entry.IsAllocated)
            return;
        references.Add(entry.Block.Bytes, _geometry.ClusterBytes, ClusterUse.RefcountBlock);
        _soundRanges.Add(index);
        ulong count = references[_geometry.ClusterOf(entry.Block).Index];
        if (count == 1)
            return;
        log.Corruption($"ERROR refcount block {index} refcount={count}");
        NeedsRebuild = true;
    }

    private BlockState StateOf(RefcountTableEntry entry)
    {
        if (!entry.IsAllocated)
            return BlockState.None;
        if (!_geometry.IsAligned(entry.Block.Bytes))
            return BlockState.Unaligned;
        bool isInside = entry.Raw <= long.MaxValue && _geometry.ClusterOf(entry.Block).Index < references.ClusterCount;
        return isInside ? BlockState.Sound : BlockState.OutsideImage;
    }

    private async Task CompareBlockAsync(HostOffset block, long first, long end, RepairKinds kinds, RepairWriter? writer)
    {
        int blockBytes = _geometry.ClusterBytes;
        long at = 0;
        for (long cluster = first; cluster < end;)
        {
            Memory<byte> window = await _blockReader.ReadAsync(block.Bytes + at, blockBytes - at);
            int count = (int)Math.Min(end - cluster, ((long)window.Length * 8) >> _geometry.RefcountOrder);
            if (CompareWindow(window.Span, cluster, count, kinds))
                await writer!.WriteAsync(block.Bytes + at, window);
            cluster += count;
            at += window.Length;
        }
    }

    /// <summary>Compares refcounts as they are stored, page by page, and says whether some were put right.</summary>
    private bool CompareWindow(Span<byte> window, long cluster, int count, RepairKinds kinds)
    {
        bool changed = false;
        int order = _geometry.RefcountOrder;
        for (int done = 0; done < count; done += ReferenceCounts.PageClusterCount)
        {
            int pageCount = Math.Min(ReferenceCounts.PageClusterCount, count - done);
            Span<byte> stored = window.Slice((done << order) >> 3, ((pageCount << order) + 7) >> 3);
            ReadOnlySpan<ushort> cells = references.PageAt((cluster + done) >> ReferenceCounts.PageBits);
            if (cells.IsEmpty && !stored.ContainsAnyExcept((byte)0))
                continue;
            for (int i = 0; i < pageCount; i++)
            {
                ulong refcount = RefcountBlock.Get(stored, order, i);
                ulong counted = cells.IsEmpty ? 0 : references.CountOf(cells[i], cluster + done + i);
                if ((refcount | counted) != 0)
                    _lastUsedCluster = Math.Max(_lastUsedCluster, cluster + done + i);
                if (refcount != counted && Mismatch(cluster + done + i, refcount, counted, kinds))
                {
                    RefcountBlock.Set(stored, order, i, counted);
                    changed = true;
                }
            }
        }
        return changed;
    }

    private void CompareWithoutBlock(long first, long end)
    {
        foreach (long cluster in references.ReferencedClusters(first, end))
        {
            _lastUsedCluster = Math.Max(_lastUsedCluster, cluster);
            _ = Mismatch(cluster, 0, references[cluster], RepairKinds.None);
        }
    }

    /// <summary>Reports a refcount that is wrong; true when it is to be put right.</summary>
    private bool Mismatch(long cluster, ulong refcount, ulong counted, RepairKinds kinds)
    {
        bool isLeak = refcount > counted;
        NeedsRebuild |= refcount == 0;
        bool repairs = isLeak ? kinds.HasFlag(RepairKinds.Leaks) && references.IsComplete
            : kinds.HasFlag(RepairKinds.Errors) && refcount > 0;
        log.RefcountMismatch(cluster, refcount, counted, repairs);
        IsRight &= repairs;
        return repairs;
    }

    /// <summary>Visits the entries of the refcount table that are not 0.</summary>
    private async Task ForEachEntryAsync(Func<long, RefcountTableEntry, ValueTask> visit)
    {
        long offset = header.RefcountTable.Bytes;
        long bytes = _tableReader.ReadableBytes(offset, (long)header.RefcountTableClusters * _geometry.ClusterBytes);
        for (long at = 0; at < bytes;)
        {
            ReadOnlyMemory<byte> window = await _tableReader.ReadAsync(offset + at, bytes - at);
            for (int entry = 0; entry + sizeof(ulong) <= window.Length; entry += sizeof(ulong))
            {
                ulong raw = BinaryPrimitives.ReadUInt64BigEndian(window.Span[entry..]);
                if (raw != 0)
                    await visit((at + entry) / sizeof(ulong), new RefcountTableEntry(raw));
            }
            at += window.Length;
        }
    }

    private async ValueTask<ReadOnlyMemory<byte>> ReadPageAsync(long offset)
    {
        long start = offset & ~(long)(CachedPageBytes - 1);
        if (_pages.TryGetValue(start, out byte[]? page))
            return page;
        if (_pages.Count >= MaxCachedPageCount)
            _pages.Clear();
        page = new byte[CachedPageBytes];
        if (start < file.LengthBytes)
            await file.ReadAsync(start, page);
        _pages.Add(start, page);
        return page;
    }

    private static string Name(ClusterUse use) => use switch
    {
        ClusterUse.Header => "header",
        ClusterUse.RefcountTable => "refcount table",
        ClusterUse.RefcountBlock => "refcount block",
        ClusterUse.L1Table => "L1 table",
        ClusterUse.L2Table => "L2 table",
        ClusterUse.Data => "data",
        ClusterUse.CompressedData => "compressed data",
        ClusterUse.SnapshotTable => "snapshot table",
        ClusterUse.Bitmap => "bitmap",
        _ => "encryption header",
    };
}
