using System.Buffers.Binary;
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
    private long _lastUsedCluster = -1;

    /// <summary>Bytes up to the end of the last cluster with a refcount or a reference.</summary>
    public long ImageEndOffset => (_lastUsedCluster + 1) << _geometry.ClusterBits;

    private enum BlockState
    {
        None,
        Sound,
        Unaligned,
        OutsideImage,
    }

    /// <summary>Counts the references to the refcount table and its blocks.</summary>
    public async Task CountTableAsync()
    {
        long bytes = (long)header.RefcountTableClusters * _geometry.ClusterBytes;
        references.Add(header.RefcountTable.Bytes, bytes, ClusterUse.RefcountTable);
        await ForEachEntryAsync((index, entry) =>
        {
            if ((entry.Raw & RefcountTableEntry.ReservedMask) != 0)
            {
                log.Corruption($"ERROR refcount table entry {index} has reserved bits set");
                return ValueTask.CompletedTask;
            }
            switch (StateOf(entry))
            {
                case BlockState.Unaligned:
                    log.Corruption($"ERROR refcount block {index} is not cluster aligned; refcount table entry corrupted");
                    break;
                case BlockState.OutsideImage:
                    log.Corruption($"ERROR refcount block {index} is outside image");
                    break;
                case BlockState.Sound:
                    references.Add(entry.Block.Bytes, _geometry.ClusterBytes, ClusterUse.RefcountBlock);
                    ulong count = references[_geometry.ClusterOf(entry.Block).Index];
                    if (count != 1)
                        log.Corruption($"ERROR refcount block {index} refcount={count}");
                    break;
            }
            return ValueTask.CompletedTask;
        });
    }

    /// <summary>Compares stored refcounts with the references counted; call it when all of them are.</summary>
    public async Task CompareAsync()
    {
        long compared = 0;
        await ForEachEntryAsync(async (index, entry) =>
        {
            long first = index << _geometry.RefcountBlockBits;
            long end = Math.Min(first + _geometry.RefcountBlockEntryCount, references.ClusterCount);
            if (first >= end)
                return;
            CompareWithoutBlock(compared, first);
            compared = end;
            switch (StateOf(entry))
            {
                case BlockState.Unaligned:
                    log.CheckError($"Can't get refcount for clusters {first} to {end - 1}: Input/output error", end - first);
                    break;
                // Who shares a block is reported already, and can't be right about both ranges.
                case BlockState.Sound when _comparedBlocks.Add(entry.Block.Bytes):
                    await CompareBlockAsync(entry.Block, first, end);
                    break;
                case BlockState.OutsideImage:
                    CompareWithoutBlock(first, end);
                    break;
            }
        });
        CompareWithoutBlock(compared, references.ClusterCount);
        foreach ((long cluster, (ClusterUse used, ClusterUse again)) in references.Overlaps)
        {
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

    private BlockState StateOf(RefcountTableEntry entry)
    {
        if (!entry.IsAllocated)
            return BlockState.None;
        if (entry.Raw > long.MaxValue || _geometry.ClusterOf(entry.Block).Index >= references.ClusterCount)
            return BlockState.OutsideImage;
        return _geometry.IsAligned(entry.Block.Bytes) ? BlockState.Sound : BlockState.Unaligned;
    }

    private async Task CompareBlockAsync(HostOffset block, long first, long end)
    {
        int blockBytes = _geometry.ClusterBytes;
        long at = 0;
        for (long cluster = first; cluster < end;)
        {
            ReadOnlyMemory<byte> window = await _blockReader.ReadAsync(block.Bytes + at, blockBytes - at);
            int count = (int)Math.Min(end - cluster, ((long)window.Length * 8) >> _geometry.RefcountOrder);
            for (int i = 0; i < count; i++)
                Compare(cluster + i, RefcountBlock.Get(window.Span, _geometry.RefcountOrder, i));
            cluster += count;
            at += window.Length;
        }
    }

    private void CompareWithoutBlock(long first, long end)
    {
        foreach (long cluster in references.ReferencedClusters(first, end))
            Compare(cluster, 0);
    }

    private void Compare(long cluster, ulong refcount)
    {
        ulong counted = references[cluster];
        if (refcount == 0 && counted == 0)
            return;
        _lastUsedCluster = Math.Max(_lastUsedCluster, cluster);
        if (refcount != counted)
            log.RefcountMismatch(cluster, refcount, counted);
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
