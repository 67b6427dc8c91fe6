using System.Buffers.Binary;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Metadata;

namespace OrleansDisk.Qcow2.Data;

/// <summary>
/// Makes zeros that entries say into zeros that lie in clusters, or into nothing where nothing lies below: version 2 has
/// no entry for them. Snapshots are served, too. The caller has the gate alone, and the image is settled.
/// </summary>
internal sealed class ZeroClusterExpansion(ImageMetadata metadata, GuestData data)
{
    private readonly ClusterGeometry _geometry = metadata.Geometry;

    /// <summary>By the header: what is not opened would show through later.</summary>
    private readonly bool _hasBacking = metadata.Header.BackingFile is not null;
    private readonly ReadOnlyMemory<byte> _zeros = new byte[metadata.Geometry.ClusterBytes];

    /// <summary>Expands all tables.</summary>
    /// <param name="snapshots">The image's snapshots.</param>
    /// <param name="report">Told how much is done, from 0 to 1.</param>
    public async Task RunAsync(IReadOnlyList<SnapshotEntry> snapshots, Action<double> report)
    {
        Dictionary<HostOffset, int> shared = await FindSharedTablesAsync(snapshots);
        int activeCount = metadata.Header.L1EntryCount;
        int done = 0;
        for (int l1Index = 0; l1Index < activeCount; l1Index++)
        {
            if (metadata.L2Tables.EntryAt(l1Index) is { IsAllocated: true, IsCopied: true })
                await ExpandAsync(l1Index);
            report(++done / (double)(activeCount + shared.Count));
        }
        foreach ((HostOffset table, int l1Index) in shared)
        {
            await ExpandSharedAsync(table, l1Index);
            report(++done / (double)(activeCount + shared.Count));
        }
        await metadata.SettleAsync();
    }

    /// <summary>Whether any table, of the disk or of a snapshot, leads to a compressed cluster.</summary>
    public async Task<bool> FindsCompressedAsync(IReadOnlyList<SnapshotEntry> snapshots)
    {
        IEnumerable<HostOffset> active = Enumerable.Range(0, metadata.Header.L1EntryCount)
            .Select(metadata.L2Tables.EntryAt).Where(entry => entry.IsAllocated).Select(entry => entry.L2Table);
        byte[] bytes = new byte[_geometry.ClusterBytes];
        foreach (HostOffset table in active.Union((await FindSharedTablesAsync(snapshots)).Keys).ToList())
        {
            await metadata.File.ReadAsync(table.Bytes, bytes);
            for (int i = 0; i < _geometry.L2EntryCount; i++)
            {
                if (L2Entry.Read(bytes, i, _geometry).Kind(_geometry) == ClusterKind.Compressed)
                    return true;
            }
        }
        return false;
    }

    /// <summary>The tables of snapshots, and those that the disk shares with them, each with its index in its L1 tables.</summary>
    private async Task<Dictionary<HostOffset, int>> FindSharedTablesAsync(IReadOnlyList<SnapshotEntry> snapshots)
    {
        var found = new Dictionary<HostOffset, int>();
        for (int l1Index = 0; l1Index < metadata.Header.L1EntryCount; l1Index++)
        {
            if (metadata.L2Tables.EntryAt(l1Index) is { IsAllocated: true, IsCopied: false } entry)
                found[entry.L2Table] = l1Index;
        }
        foreach (SnapshotEntry snapshot in snapshots)
        {
            byte[] l1 = new byte[snapshot.L1EntryCount * (long)sizeof(ulong)];
            await metadata.File.ReadAsync(snapshot.L1Table.Bytes, l1);
            for (int l1Index = 0; l1Index < snapshot.L1EntryCount; l1Index++)
            {
                var entry = new L1Entry(BinaryPrimitives.ReadUInt64BigEndian(l1.AsSpan(l1Index * sizeof(ulong))));
                if (entry.IsAllocated)
                    found[entry.L2Table] = l1Index;
            }
        }
        return found;
    }

    private async Task ExpandAsync(int l1Index)
    {
        var first = new GuestCluster((long)l1Index << _geometry.L2Bits);
        for (int i = 0; i < _geometry.L2EntryCount; i++)
        {
            GuestCluster cluster = first + i;
            using TablePin pin = await metadata.L2Tables.PinForChangeAsync(cluster);
            L2Entry entry = metadata.L2Tables.Read(pin.Table, cluster);
            if (entry.Kind(_geometry) is not (ClusterKind.ZeroPlain or ClusterKind.ZeroAllocated))
                continue;
            if (entry is { IsCopied: true } && entry.Kind(_geometry) == ClusterKind.ZeroAllocated)
            {
                await WriteZerosAsync(cluster, _geometry.ClusterOf(entry.Host));
                metadata.L2Tables.Write(pin.Table, cluster, L2Entry.Data(entry.Host, copied: true));
                continue;
            }
            // What others share may be data to them.
            metadata.EnsureFreeable(entry);
            metadata.L2Tables.Write(pin.Table, cluster, _hasBacking ? await AllocateAsync(cluster, refcount: 1) : L2Entry.Unallocated);
            metadata.FreeClustersOf(entry, DiscardType.Never);
        }
    }

    /// <summary>
    /// A table of snapshots is changed where it lies: zeros and refcounts first, barrier, then the table. Each of its
    /// sectors says the same before and after.
    /// </summary>
    private async Task ExpandSharedAsync(HostOffset table, int l1Index)
    {
        if (!_geometry.IsAligned(table.Bytes))
            throw new MetadataDamagedException($"L2 table offset {table} unaligned (L1 index: 0x{l1Index:x})");
        byte[] bytes = new byte[_geometry.ClusterBytes];
        await metadata.File.ReadAsync(table.Bytes, bytes);
        ulong refcount = await metadata.Allocator.ReadRefcountAsync(_geometry.ClusterOf(table));
        var first = new GuestCluster((long)l1Index << _geometry.L2Bits);
        bool changed = false;
        var left = new List<L2Entry>();
        for (int i = 0; i < _geometry.L2EntryCount; i++)
        {
            var entry = L2Entry.Read(bytes, i, _geometry);
            if (entry.Kind(_geometry) is not (ClusterKind.ZeroPlain or ClusterKind.ZeroAllocated))
                continue;
            L2Entry expanded;
            if (entry.Kind(_geometry) == ClusterKind.ZeroAllocated && await IsReachedByAsync(entry, refcount))
            {
                await WriteZerosAsync(first + i, _geometry.ClusterOf(entry.Host));
                expanded = L2Entry.Data(entry.Host, entry.IsCopied);
            }
            else
            {
                metadata.EnsureFreeable(entry);
                expanded = _hasBacking ? await AllocateAsync(first + i, refcount) : L2Entry.Unallocated;
                left.Add(entry);
            }
            expanded.WriteTo(bytes, i, _geometry);
            changed = true;
        }
        if (!changed)
            return;
        await metadata.Order.FlushAsync();
        await metadata.RewriteSharedTableAsync(table, bytes);
        for (ulong reference = 0; reference < refcount; reference++)
            left.ForEach(entry => metadata.FreeClustersOf(entry, DiscardType.Never));
    }

    /// <summary>Whether all references to a cluster come through one table: then it is zeros to everyone.</summary>
    private async ValueTask<bool> IsReachedByAsync(L2Entry entry, ulong tableRefcount) =>
        await metadata.Allocator.ReadRefcountAsync(_geometry.ClusterOf(entry.Host)) == tableRefcount;

    private async ValueTask<L2Entry> AllocateAsync(GuestCluster cluster, ulong refcount)
    {
        HostRun run = await metadata.Allocator.ReserveAsync(1);
        for (ulong raised = 1; raised < refcount; raised++)
        {
            if (!await metadata.Allocator.TryRaiseAsync(run.First))
                throw new MetadataDamagedException($"The refcount of {run.First} can't be as large as that of the table that leads to it");
        }
        await WriteZerosAsync(cluster, run.First);
        return L2Entry.Data(_geometry.OffsetOf(run.First), copied: refcount == 1);
    }

    private async ValueTask WriteZerosAsync(GuestCluster cluster, HostCluster host)
    {
        if (metadata.Map.Find(host) is { } name)
            throw new MetadataDamagedException($"Preventing invalid write on metadata (overlaps with {name})");
        await data.WriteAsync(_geometry.OffsetOf(cluster), _geometry.OffsetOf(host), _zeros);
        metadata.Order.NoteDataWritten();
    }
}
