using System.Buffers.Binary;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Qcow2.Operations;

/// <summary>
/// Gives an image refcounts of another width: a whole new refcount structure is written behind everything that is in
/// use, where nothing leads, and the header then leads to it in one write. The old one is free from then on.
/// </summary>
internal sealed class RefcountWidth
{
    private readonly IBlockFile _file;
    private readonly Header _header;
    private readonly ClusterGeometry _old;
    private readonly ClusterGeometry _new;
    private readonly byte[] _oldTable;

    /// <summary>Clusters of the old structure, which count one less in the new one.</summary>
    private readonly HashSet<long> _replaced = [];
    private readonly byte[] _oldBlock;
    private int _oldBlockIndex = -1;

    private RefcountWidth(IBlockFile file, Header header, int refcountOrder, byte[] oldTable)
    {
        (_file, _header, _old, _oldTable) = (file, header, header.Geometry, oldTable);
        _new = new ClusterGeometry(_old.ClusterBits, refcountOrder, header.Incompatible);
        _oldBlock = new byte[_old.ClusterBytes];
        HostCluster table = _old.ClusterOf(header.RefcountTable);
        for (int i = 0; i < header.RefcountTableClusters; i++)
            _replaced.Add(table.Index + i);
        for (int index = 0; index < OldBlockCount; index++)
        {
            if (OldBlockAt(index) is { IsAllocated: true } entry)
                _replaced.Add(_old.ClusterOf(entry.Block).Index);
        }
    }

    private int OldBlockCount => _oldTable.Length / sizeof(ulong);

    /// <summary>Changes the width. The image is settled, and nobody else uses its file.</summary>
    /// <param name="file">The image's file.</param>
    /// <param name="refcountOrder">Base-2 logarithm of the new width in bits.</param>
    /// <param name="report">Told how much is done, from 0 to 1.</param>
    /// <exception cref="Qcow2Exception">A refcount does not fit the new width, or the table would be too long; nothing has changed.</exception>
    /// <exception cref="BlockFileException">The file can't be read or written; the image is as it was.</exception>
    public static async Task ChangeAsync(IBlockFile file, int refcountOrder, Action<double> report)
    {
        Header header = await HeaderReader.ReadAsync(file);
        byte[] oldTable = new byte[(long)header.RefcountTableClusters << header.Geometry.ClusterBits];
        await file.ReadAsync(header.RefcountTable.Bytes, oldTable);
        var change = new RefcountWidth(file, header, refcountOrder, oldTable);
        (SortedSet<int> needed, HostCluster end) = await change.SurveyAsync(part => report(part / 2));
        int tableClusters = change.Plan(needed, end);
        await change.WriteAsync(needed, end, tableClusters, part => report(0.5 + (part / 2)));
    }

    /// <summary>Which new blocks count something, and where everything ends that is in use.</summary>
    private async Task<(SortedSet<int> Needed, HostCluster End)> SurveyAsync(Action<double> report)
    {
        var needed = new SortedSet<int>();
        long end = 0;
        for (int index = 0; index < OldBlockCount; index++)
        {
            if (!await LoadOldBlockAsync(index))
                continue;
            for (int i = 0; i < _old.RefcountBlockEntryCount; i++)
            {
                ulong refcount = RefcountBlock.Get(_oldBlock, _old.RefcountOrder, i);
                if (refcount == 0)
                    continue;
                long cluster = ((long)index << _old.RefcountBlockBits) + i;
                if (refcount > _new.MaxRefcount)
                {
                    throw new Qcow2Exception($"Cannot decrease refcount entry width to {_new.RefcountBits} bits: "
                        + $"Cluster at offset {_old.OffsetOf(new HostCluster(cluster))} has a refcount of {refcount}");
                }
                needed.Add(_new.RefcountTableIndex(new HostCluster(cluster)));
                end = cluster + 1;
            }
            report((index + 1) / (double)OldBlockCount);
        }
        return (needed, new HostCluster(Math.Max(end, _old.ClusterCount(_file.LengthBytes))));
    }

    /// <summary>Adds the blocks that count the new structure itself; gives the clusters of its table.</summary>
    private int Plan(SortedSet<int> needed, HostCluster end)
    {
        while (true)
        {
            long tableBytes = (needed.Max + 1L) * sizeof(ulong);
            int tableClusters = (int)_new.ClusterCount(tableBytes);
            if ((long)tableClusters << _new.ClusterBits > ClusterGeometry.MaxRefcountTableBytes)
                throw new Qcow2Exception($"'{_file.Name}' can't have refcounts of {_new.RefcountBits} bits: its refcount table would exceed 8 MiB");
            int before = needed.Count;
            HostCluster last = end + (tableClusters + needed.Count - 1);
            for (int index = _new.RefcountTableIndex(end); index <= _new.RefcountTableIndex(last); index++)
                needed.Add(index);
            if (needed.Count == before)
                return tableClusters;
        }
    }

    private async Task WriteAsync(SortedSet<int> needed, HostCluster end, int tableClusters, Action<double> report)
    {
        byte[] table = new byte[(long)tableClusters << _new.ClusterBits];
        byte[] block = new byte[_new.ClusterBytes];
        HostCluster next = end + tableClusters;
        HostCluster newEnd = next + needed.Count;
        int done = 0;
        foreach (int index in needed)
        {
            Array.Clear(block);
            for (int i = 0; i < _new.RefcountBlockEntryCount; i++)
            {
                var cluster = new HostCluster(((long)index << _new.RefcountBlockBits) + i);
                ulong refcount = cluster.Index >= newEnd.Index ? 0
                    : cluster.Index >= end.Index ? 1 : await RefcountAsync(cluster);
                RefcountBlock.Set(block, _new.RefcountOrder, i, refcount);
            }
            BinaryPrimitives.WriteUInt64BigEndian(table.AsSpan(index * sizeof(ulong)), RefcountTableEntry.To(_new.OffsetOf(next)).Raw);
            await _file.WriteAsync(_new.OffsetOf(next).Bytes, block);
            next += 1;
            report(++done / (double)needed.Count);
        }
        await _file.WriteAsync(_new.OffsetOf(end).Bytes, table);
        await SwitchAsync(end, tableClusters);
    }

    /// <summary>Barrier, the header, barrier.</summary>
    private async Task SwitchAsync(HostCluster table, int tableClusters)
    {
        byte[] before = new byte[_old.ClusterBytes];
        await _file.ReadAsync(0, before);
        byte[] after = new byte[_old.ClusterBytes];
        (_header with
        {
            Geometry = _new,
            RefcountTable = _new.OffsetOf(table),
            RefcountTableClusters = tableClusters,
        }).WithFeatureNames().WriteTo(after);
        await _file.FlushAsync();
        foreach (HeaderWrite step in HeaderRewrite.Plan(before, after))
        {
            await _file.WriteAsync(step.Offset, step.Bytes);
            await _file.FlushAsync();
        }
    }

    /// <summary>A cluster's refcount without the old structure.</summary>
    private async ValueTask<ulong> RefcountAsync(HostCluster cluster)
    {
        int index = _old.RefcountTableIndex(cluster);
        if (index >= OldBlockCount || !await LoadOldBlockAsync(index))
            return 0;
        ulong refcount = RefcountBlock.Get(_oldBlock, _old.RefcountOrder, _old.RefcountBlockIndex(cluster));
        return refcount > 0 && _replaced.Contains(cluster.Index) ? refcount - 1 : refcount;
    }

    private async ValueTask<bool> LoadOldBlockAsync(int index)
    {
        RefcountTableEntry entry = OldBlockAt(index);
        if (!entry.IsAllocated)
            return false;
        if (!_old.IsAligned(entry.Block.Bytes))
            throw new Qcow2FormatException($"Refblock offset {entry.Block} unaligned (reftable index: 0x{index:x})");
        if (_oldBlockIndex != index)
        {
            _oldBlockIndex = -1;
            await _file.ReadAsync(entry.Block.Bytes, _oldBlock);
            _oldBlockIndex = index;
        }
        return true;
    }

    private RefcountTableEntry OldBlockAt(int index) =>
        new(BinaryPrimitives.ReadUInt64BigEndian(_oldTable.AsSpan(index * sizeof(ulong))));
}
