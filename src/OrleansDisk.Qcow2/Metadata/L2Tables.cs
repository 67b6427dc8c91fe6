using OrleansDisk.Qcow2.Format;

namespace OrleansDisk.Qcow2.Metadata;

/// <summary>The active L1 table and the L2 tables below it.</summary>
internal sealed class L2Tables(
    ClusterGeometry geometry, PointerTable l1, TableCache cache, PublishedTables published, ClusterAllocator allocator,
    FreedClusters freed, MetadataMap map)
{
    private readonly Dictionary<int, Task> _beingMade = [];

    /// <summary>Whether an L2 table maps a guest cluster at all.</summary>
    public bool IsAllocated(GuestCluster cluster) => Entry(cluster).IsAllocated;

    /// <summary>The L2 table of a guest cluster if it is in the cache and there is one.</summary>
    public bool TryGet(GuestCluster cluster, out CachedTable table)
    {
        int l1Index = geometry.L1Index(cluster);
        L1Entry entry = Entry(cluster);
        table = published.Find(l1Index)!;
        if (table is not null)
        {
            table.NoteUsed();
            return entry.IsAllocated;
        }
        if (!entry.IsAllocated)
        {
            published.PublishNothing(l1Index);
            return false;
        }
        if (!cache.TryGet(entry.L2Table, out table!))
            return false;
        published.Publish(l1Index, table);
        return true;
    }

    /// <summary>The L2 table of a guest cluster, for reading; there must be one.</summary>
    public ValueTask<TablePin> PinAsync(GuestCluster cluster) =>
        TryGet(cluster, out CachedTable table) ? new ValueTask<TablePin>(new TablePin(table)) : LoadAndPinAsync(cluster);

    /// <summary>
    /// The L2 table of a guest cluster, for changing: made if there is none, copied if a snapshot shares it.
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

    /// <summary>A guest cluster's entry in its table.</summary>
    public L2Entry Read(CachedTable table, GuestCluster cluster) => new(table.ReadEntry(geometry.L2Index(cluster)));

    /// <summary>Changes a guest cluster's entry.</summary>
    public void Write(CachedTable table, GuestCluster cluster, L2Entry entry) =>
        cache.WriteEntry(table, geometry.L2Index(cluster), entry.Raw);

    /// <summary>Points a guest cluster to a host cluster of its own, which may be written in place from now on.</summary>
    public void Link(CachedTable table, GuestCluster cluster, HostOffset host)
    {
        Write(table, cluster, L2Entry.Data(host, copied: true));
        int index = geometry.L2Index(cluster);
        table.SetWritable(index, 1UL << index, map.Generation);
    }

    private L1Entry Entry(GuestCluster cluster) => new(l1[geometry.L1Index(cluster)]);

    private async ValueTask<TablePin> LoadAndPinAsync(GuestCluster cluster)
    {
        HostOffset offset = ValidTable(cluster);
        TablePin pin = await cache.PinAsync(offset);
        if (Entry(cluster).L2Table == offset)
            published.Publish(geometry.L1Index(cluster), pin.Table);
        return pin;
    }

    private async ValueTask MakeAsync(GuestCluster cluster, int l1Index)
    {
        L1Entry shared = Entry(cluster);
        byte[] bytes = new byte[geometry.ClusterBytes];
        if (shared.IsAllocated)
        {
            using TablePin source = await PinAsync(cluster);
            source.Table.Bytes.CopyTo(bytes);
        }
        await cache.MakeRoomAsync();
        HostRun run = await allocator.ReserveAsync(1);
        HostOffset offset = geometry.OffsetOf(run.First);
        var table = new CachedTable(offset, bytes) { IsUnreachable = true };
        table.MarkAllDirty();
        cache.Add(table);
        map.AddL2Table(offset);
        l1[l1Index] = L1Entry.To(offset, copied: true).Raw;
        published.Publish(l1Index, table);
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
