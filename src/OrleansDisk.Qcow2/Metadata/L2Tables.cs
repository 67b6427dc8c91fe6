using System.Buffers;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Qcow2.Metadata;

/// <summary>The active L1 table and the slices of the L2 tables below it.</summary>
internal sealed class L2Tables(
    IBlockFile file, ClusterGeometry geometry, PointerTable l1, TableCache cache, PublishedSlices published,
    ClusterAllocator allocator, FreedClusters freed, MetadataMap map, ImageHealth health)
{
    private readonly Dictionary<int, Task> _beingMade = [];

    /// <summary>Whether an L2 table maps a guest cluster at all.</summary>
    public bool IsAllocated(GuestCluster cluster) => Entry(cluster).IsAllocated;

    /// <summary>The L2 slice of a guest cluster if it is in the cache and there is one.</summary>
    public bool TryGet(GuestCluster cluster, out CachedTable slice)
    {
        long number = geometry.L2Slice(cluster);
        L1Entry entry = Entry(cluster);
        slice = published.Find(number)!;
        if (slice is not null)
        {
            slice.NoteUsed();
            return entry.IsAllocated;
        }
        if (!entry.IsAllocated)
        {
            published.PublishNothing(number);
            return false;
        }
        if (!cache.TryGet(SliceOffset(entry, cluster), out slice!))
            return false;
        published.Publish(number, slice);
        return true;
    }

    /// <summary>The L2 slice of a guest cluster, for reading; there must be one.</summary>
    public ValueTask<TablePin> PinAsync(GuestCluster cluster) =>
        TryGet(cluster, out CachedTable slice) ? new ValueTask<TablePin>(new TablePin(slice)) : LoadAndPinAsync(cluster);

    /// <summary>
    /// The L2 slice of a guest cluster, for changing: its table is made if there is none, copied if a snapshot shares it.
    /// </summary>
    public async ValueTask<TablePin> PinForChangeAsync(GuestCluster cluster)
    {
        while (true)
        {
            if (Entry(cluster).IsCopied && Entry(cluster).IsAllocated)
                return await PinAsync(cluster);
            int l1Index = geometry.L1Index(cluster);
            if (_beingMade.TryGetValue(l1Index, out Task? other))
            {
                await other;
                continue;
            }
            var made = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            _beingMade.Add(l1Index, made.Task);
            try
            {
                await MakeAsync(cluster, l1Index);
            }
            finally
            {
                _beingMade.Remove(l1Index);
                made.SetResult();
            }
        }
    }

    /// <summary>An entry of the L1 table.</summary>
    public L1Entry EntryAt(int l1Index) => new(l1[l1Index]);

    /// <summary>Lets go of what is cached of a table that snapshots share and that was changed in the file.</summary>
    public void Forget(HostOffset table)
    {
        for (int slice = 0; slice < geometry.L2SliceCount; slice++)
            cache.Forget(table + ((long)slice * geometry.L2SliceBytes));
    }

    /// <summary>Takes a table out of the L1 table, whoever shares it; the caller has the gate alone.</summary>
    /// <param name="l1Index">Index of its L1 entry.</param>
    /// <param name="free">Gets each entry, whose clusters lose the reference that it had in them.</param>
    public async ValueTask RemoveAsync(int l1Index, Action<L2Entry> free)
    {
        var entry = new L1Entry(l1[l1Index]);
        if (!entry.IsAllocated)
            return;
        var first = new GuestCluster((long)l1Index << geometry.L2Bits);
        for (int slice = 0; slice < geometry.L2SliceCount; slice++)
        {
            using TablePin pin = await PinAsync(first + ((long)slice << geometry.L2SliceBits));
            for (int i = 0; i < geometry.L2SliceEntryCount; i++)
                free(pin.Table.ReadL2Entry(i, geometry));
        }
        l1[l1Index] = L1Entry.Unallocated.Raw;
        published.WithdrawTable(l1Index);
        freed.Add(geometry.ClusterOf(entry.L2Table), 1, discard: true);
    }

    /// <summary>A guest cluster's entry in its slice.</summary>
    public L2Entry Read(CachedTable slice, GuestCluster cluster) => slice.ReadL2Entry(geometry.L2SliceIndex(cluster), geometry);

    /// <summary>Changes a guest cluster's entry.</summary>
    public void Write(CachedTable slice, GuestCluster cluster, L2Entry entry) =>
        cache.WriteL2Entry(slice, geometry.L2SliceIndex(cluster), entry, geometry);

    /// <summary>Points a guest cluster to a host cluster of its own, which may be written in place from now on.</summary>
    public void Link(CachedTable slice, GuestCluster cluster, HostOffset host, SubclusterBitmap bitmap)
    {
        Write(slice, cluster, L2Entry.Data(host, copied: true, bitmap));
        int index = geometry.L2SliceIndex(cluster);
        slice.SetWritable(index, 1UL << index, map.Generation);
    }

    private L1Entry Entry(GuestCluster cluster) => new(l1[geometry.L1Index(cluster)]);

    private HostOffset SliceOffset(L1Entry entry, GuestCluster cluster) =>
        entry.L2Table + ((long)(geometry.L2Index(cluster) >> geometry.L2SliceBits) * geometry.L2SliceBytes);

    private async ValueTask<TablePin> LoadAndPinAsync(GuestCluster cluster)
    {
        HostOffset table = ValidTable(cluster);
        TablePin pin = await cache.PinAsync(SliceOffset(Entry(cluster), cluster));
        if (Entry(cluster).L2Table == table)
            published.Publish(geometry.L2Slice(cluster), pin.Table);
        return pin;
    }

    /// <summary>
    /// Makes a table for a guest cluster, empty or as the one that is shared. It is in the file, whole, before the L1
    /// entry leads to it: the barrier that comes before that entry is written covers it (docs/consistency.md, W2).
    /// </summary>
    private async ValueTask MakeAsync(GuestCluster cluster, int l1Index)
    {
        L1Entry shared = Entry(cluster);
        byte[] pooled = ArrayPool<byte>.Shared.Rent(geometry.ClusterBytes);
        try
        {
            Memory<byte> table = pooled.AsMemory(0, geometry.ClusterBytes);
            if (shared.IsAllocated)
                await file.ReadAsync(ValidTable(cluster).Bytes, table); // no turn changes a shared table: the file has it
            else
                table.Span.Clear();
            HostRun run = await allocator.ReserveAsync(1, "L2 table");
            HostOffset offset = geometry.OffsetOf(run.First);
            try
            {
                await file.WriteAsync(offset.Bytes, table);
                health.ThrowIfFailed();
            }
            catch (Exception) when (!health.HasFailed)
            {
                await allocator.AbandonAsync(run.First, run.Count);
                throw;
            }
            map.AddL2Table(offset);
            l1[l1Index] = L1Entry.To(offset, copied: true).Raw;
            published.WithdrawTable(l1Index);
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(pooled);
        }
        if (shared.IsAllocated)
            freed.Add(geometry.ClusterOf(shared.L2Table), 1, discard: false);
    }

    private HostOffset ValidTable(GuestCluster cluster)
    {
        HostOffset offset = Entry(cluster).L2Table;
        if (!geometry.IsAligned(offset.Bytes))
            throw new MetadataDamagedException($"L2 table offset {offset} unaligned (L1 index: 0x{geometry.L1Index(cluster):x})");
        return offset;
    }
}
