using OrleansDisk.Qcow2.Concurrency;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Qcow2.Metadata;

/// <summary>The metadata of one open image: its tables, their caches, and the one order in which they are written.</summary>
internal sealed partial class ImageMetadata
{
    private readonly PointerTable _l1;
    private readonly PointerTable _refcountTable;
    private readonly TableCache _l2Cache;
    private readonly TableCache _refcountBlocks;
    private Task _release = Task.CompletedTask;
    private bool _isReleasing;
    private bool _isDisjoint;

    private ImageMetadata(
        IBlockFile file, IBlockFile dataFile, Header header, PointerTable l1, PointerTable refcountTable, MetadataMap map, Qcow2OpenOptions options, CacheSizes caches)
    {
        File = file;
        DataFile = dataFile;
        Header = header;
        Map = map;
        _l1 = l1;
        _refcountTable = refcountTable;
        RunBeside = options.RunBeside;
        Discards = new DiscardPolicy(options);
        CacheCleanInterval = options.CacheCleanInterval;
        Health = new ImageHealth(file) { Stopped = Gate.Leases.Revoke };
        Published = new PublishedSlices(l1.Count, header.Geometry);
        Freed = new FreedClusters(Gate);
        int tableBytes = header.Geometry.ClusterBytes;
        // One writer for both kinds of tables: two could overtake each other on the same table.
        ValueTask WriteBackAsync() => new(Order!.FlushAsync());
        bool IsWriting() => Order!.IsWriting;
        _l2Cache = new TableCache(file, header.Geometry.L2SliceBytes, caches.L2Bytes, WriteBackAsync, IsWriting) { Removed = Published.Withdraw };
        _refcountBlocks = new TableCache(file, tableBytes, caches.RefcountBytes, WriteBackAsync, IsWriting);
        Order = new WriteOrder(file, dataFile, Health, tableBytes, l1, _l2Cache, refcountTable, _refcountBlocks, Freed)
        {
            ClustersUnreferenced = Release,
            RefcountTableMoved = (offset, clusters) =>
                Header = Header with { RefcountTable = offset, RefcountTableClusters = clusters },
        };
        if (DirtyBit.IsWanted(header, options))
            Order.WritingRefcounts = MarkDirtyAsync;
        Allocator = new ClusterAllocator(file, header.Geometry, refcountTable, _refcountBlocks, map, Freed)
        {
            Freed = OnClusterFreed,
        };
        CompressedSpace = new CompressedSpace(file, header.Geometry, Allocator);
        L2Tables = new L2Tables(file, header.Geometry, l1, _l2Cache, Published, Allocator, Freed, map, Health);
        Gate.EpochDrained = Release;
    }

    public IBlockFile File { get; }

    /// <summary>Where guest data lies: an external data file, or <see cref="File"/> itself.</summary>
    public IBlockFile DataFile { get; }

    /// <summary>Whether the data file is the disk's bytes even without the metadata: zeros must lie in it, too.</summary>
    public bool IsDataFileRaw => Geometry.HasExternalData && Header.Autoclear.HasFlag(AutoclearFeatures.RawExternalData);

    public Header Header { get; private set; }

    public ClusterGeometry Geometry => Header.Geometry;

    public ImageHealth Health { get; }

    public RequestGate Gate { get; } = new();

    public ClusterReservations Reservations { get; } = new();

    public FreedClusters Freed { get; }

    public DiscardPolicy Discards { get; }

    public TimeSpan CacheCleanInterval { get; }

    public MetadataMap Map { get; }

    public ClusterAllocator Allocator { get; }

    /// <summary>Where compressed clusters go.</summary>
    public CompressedSpace CompressedSpace { get; }

    /// <summary>How often a host cluster became free: from then on its bytes may be others.</summary>
    public long FreedCount { get; private set; }

    /// <summary>Runs work that takes the processor's time, not the image's, beside the turns.</summary>
    public Func<Action, ValueTask> RunBeside { get; }

    public L2Tables L2Tables { get; }

    /// <summary>The cached L2 slices, for those who look entries up without a turn.</summary>
    public PublishedSlices Published { get; }

    public WriteOrder Order { get; }

    /// <summary>Reads the tables that stay in memory.</summary>
    /// <exception cref="BlockFileException">They can't be read.</exception>
    public static async Task<ImageMetadata> LoadAsync(
        IBlockFile file, IBlockFile? externalDataFile, Header header, Qcow2OpenOptions options)
    {
        var caches = CacheSizes.Of(options, header);
        header = header with { Geometry = header.Geometry.WithL2SliceBytes(caches.L2EntryBytes) };
        ClusterGeometry geometry = header.Geometry;
        PointerTable l1 = await LoadTableAsync(file, header.L1Table, header.L1EntryCount * (long)sizeof(ulong));
        PointerTable refcountTable = await LoadTableAsync(
            file, header.RefcountTable, (long)header.RefcountTableClusters << geometry.ClusterBits);
        var map = new MetadataMap(geometry, options.OverlapChecks);
        map.SetRange(MetadataMap.ActiveL1, l1.Offset, l1.Count * (long)sizeof(ulong));
        map.SetRange(MetadataMap.RefcountTable, refcountTable.Offset, refcountTable.Count * (long)sizeof(ulong));
        if (header.Encryption == EncryptionMethod.Luks)
        {
            var keys = EncryptionHeader.Of(header);
            map.SetRange(MetadataMap.Keys, keys.Start, keys.Bytes);
        }
        IReadOnlyList<SnapshotEntry> snapshots = [];
        if (!file.IsReadOnly)
        {
            MapTables(l1, refcountTable, map, geometry);
            MapBitmaps(header, map);
            snapshots = await MapSnapshotsAsync(file, header, map);
        }
        return new ImageMetadata(file, externalDataFile ?? file, header, l1, refcountTable, map, options, caches) { Snapshots = snapshots };
    }

    /// <summary>
    /// Writes everything back and releases every freed cluster, so that the file is as a clean close leaves it. The
    /// caller has the gate alone.
    /// </summary>
    public async Task SettleAsync()
    {
        await EndViewAsync();
        do
        {
            await Order.FlushAsync();
            Release();
            await _release;
            Health.ThrowIfFailed();
        }
        while (!Freed.IsEmpty);
        await CompressedSpace.SettleAsync();
        await Order.FlushAsync();
    }

    /// <summary>Lets tables go that nobody has used since the last call, as far as the file has what they say.</summary>
    public void DropUnusedTables()
    {
        _l2Cache.DropUnused();
        _refcountBlocks.DropUnused();
    }

    /// <summary>
    /// Refuses an L2 entry whose clusters hold metadata: freeing them would take the ground from under the image. Call
    /// it before the entry is replaced.
    /// </summary>
    /// <exception cref="MetadataDamagedException">They do (W8).</exception>
    public void EnsureFreeable(L2Entry entry)
    {
        (HostCluster first, long count) = ClustersOf(entry);
        if (Map.Find(first, count) is { } name)
            throw new MetadataDamagedException($"Preventing invalid free of metadata ({name}) at offset {Geometry.OffsetOf(first)}");
    }

    /// <summary>Takes the references of an L2 entry that was just replaced out of the refcounts, in time.</summary>
    /// <param name="entry">The entry as it was.</param>
    /// <param name="type">Why, which decides whether the space goes back to the host.</param>
    public void FreeClustersOf(L2Entry entry, DiscardType type)
    {
        (HostCluster first, long count) = ClustersOf(entry);
        if (count > 0)
            Freed.Add(first, count, Discards.Passes(type));
    }

    /// <summary>The host clusters in which an entry has a reference each.</summary>
    public (HostCluster First, long Count) ClustersOf(L2Entry entry)
    {
        if (Geometry.HasExternalData)
            return default; // nobody counts references in a data file
        switch (entry.Kind(Geometry))
        {
            case ClusterKind.Data or ClusterKind.ZeroAllocated:
                return (Geometry.ClusterOf(entry.Host), 1);
            case ClusterKind.Compressed:
                return Geometry.ClustersOf(entry.Compressed(Geometry));
            default:
                return default;
        }
    }

    /// <summary>
    /// Refuses to change an image whose tables lie in each other. They are looked at once, before the first change; those
    /// that come later lie where the allocator put them.
    /// </summary>
    /// <exception cref="MetadataDamagedException">They do (W8).</exception>
    public void EnsureDisjoint()
    {
        if (_isDisjoint)
            return;
        Map.EnsureDisjoint();
        _isDisjoint = true;
    }

    /// <summary>
    /// Rewrites the header's cluster: fields, extensions, backing file name. Whatever moment a crash comes at, the file
    /// has the old header or the new one (<see cref="HeaderRewrite"/>). What the new one leads to must be written; it need not be
    /// flushed.
    /// </summary>
    /// <param name="change">Makes the new header of the one that is on disk at that moment.</param>
    /// <exception cref="Qcow2Exception">The new header does not fit its cluster; nothing has changed.</exception>
    /// <exception cref="Qcow2FailedException">A write failed; the image has stopped.</exception>
    public Task ReplaceHeaderAsync(Func<Header, Header> change) => Order.BetweenWriteBacksAsync(async () =>
    {
        byte[] before = new byte[Geometry.ClusterBytes];
        await File.ReadAsync(0, before);
        byte[] after = new byte[Geometry.ClusterBytes];
        change(Header).WithFeatureNames().WriteTo(after);
        await Order.WriteHeaderAsync(HeaderRewrite.Plan(before, after));
        Header = Header.Parse(after) with { Geometry = Geometry };
    });

    /// <summary>
    /// Takes the dirty bit away, when everything is on stable storage that it stands for (lazy refcounts). The caller has the
    /// gate alone.
    /// </summary>
    public Task MarkCleanAsync() => !Header.Incompatible.HasFlag(IncompatibleFeatures.Dirty) ? Task.CompletedTask
        : Order.BetweenWriteBacksAsync(() => WriteFeaturesAsync(Header.Incompatible & ~IncompatibleFeatures.Dirty));

    /// <summary>
    /// Takes away, on stable storage, the autoclear bits that are unknown: what they stand for is about to be no longer true.
    /// </summary>
    public Task ClearUnknownFeaturesAsync()
    {
        AutoclearFeatures known = Header.Autoclear & FeatureCheck.KnownAutoclear;
        return known == Header.Autoclear ? Task.CompletedTask : Order.BetweenWriteBacksAsync(async () =>
        {
            byte[] field = new byte[sizeof(ulong)];
            HeaderField.WriteUInt64(field, 0, (ulong)known);
            await Order.WriteHeaderAsync([new HeaderWrite(HeaderField.Autoclear, field)]);
            Header = Header with { Autoclear = known };
        });
    }

    private ValueTask MarkDirtyAsync() => Header.Version < 3 || Header.Incompatible.HasFlag(IncompatibleFeatures.Dirty) ? ValueTask.CompletedTask
        : new ValueTask(WriteFeaturesAsync(Header.Incompatible | IncompatibleFeatures.Dirty));

    private async Task WriteFeaturesAsync(IncompatibleFeatures features)
    {
        byte[] field = new byte[sizeof(ulong)];
        HeaderField.WriteUInt64(field, 0, (ulong)features);
        await Order.WriteHeaderAsync([new HeaderWrite(HeaderField.Incompatible, field)]);
        Header = Header with { Incompatible = features };
    }

    /// <summary>Waits until nothing that runs in the background touches the file.</summary>
    public async Task IdleAsync()
    {
        await EndViewAsync();
        await _release;
        await Order.IdleAsync();
    }

    /// <summary>Makes the disk larger; the caller has the gate alone.</summary>
    /// <param name="virtualBytes">The new size.</param>
    /// <param name="fill">Makes the new range what it is to be, before the header on disk says that it exists.</param>
    public async Task GrowAsync(long virtualBytes, Func<ValueTask> fill)
    {
        await SettleAsync();
        long neededCount = Geometry.L1EntryCount(virtualBytes);
        if (neededCount * sizeof(ulong) > ClusterGeometry.MaxL1Bytes)
            throw new NoSpaceException($"'{File.Name}' can't grow to {virtualBytes} bytes: its L1 table would exceed 32 MiB; use larger clusters");
        if (neededCount > _l1.Count)
            await MoveL1Async((int)neededCount);
        Header before = Header;
        Header = Header with { VirtualBytes = virtualBytes };
        try
        {
            await fill();
            await SettleAsync();
        }
        catch
        {
            Header = Header with { VirtualBytes = before.VirtualBytes };
            throw;
        }
        await WriteSizeAsync();
    }

    /// <summary>
    /// Makes the disk smaller; the caller has the gate alone. What lies behind its new end is still there afterwards,
    /// and nobody sees it.
    /// </summary>
    public async Task CutAsync(long virtualBytes)
    {
        await SettleAsync();
        Header = Header with { VirtualBytes = virtualBytes };
        await WriteSizeAsync();
    }

    /// <summary>
    /// Gives back refcount blocks that count nothing, and the end of the file as far as nothing is in use there. The caller has the gate alone.
    /// </summary>
    public async Task TrimFileAsync()
    {
        var tail = new FileTail(File, Geometry, _refcountTable, _refcountBlocks, Map, Freed);
        await tail.DropUnusedBlocksAsync();
        await SettleAsync();
        HostCluster end = await tail.FindEndAsync();
        if (Geometry.OffsetOf(end).Bytes < File.LengthBytes && await Order.CutFileAsync(Geometry.OffsetOf(end).Bytes))
            Allocator.NoteCut(end);
    }

    /// <summary>
    /// Writes a table that snapshots share where it lies; the caller has the gate alone. What it leads to is on stable storage,
    /// and each of its sectors may be the old one or the new one.
    /// </summary>
    /// <exception cref="Qcow2FailedException">It can't be written; the image has stopped.</exception>
    public Task RewriteSharedTableAsync(HostOffset table, byte[] bytes) => Order.BetweenWriteBacksAsync(async () =>
    {
        await Order.WriteInPlaceAsync(table, bytes);
        L2Tables.Forget(table);
    });

    private Task WriteSizeAsync()
    {
        byte[] size = new byte[sizeof(ulong)];
        HeaderField.WriteUInt64(size, 0, (ulong)Header.VirtualBytes);
        return Order.WriteHeaderAsync(HeaderField.Size, size);
    }

    /// <summary>Gives the L1 table more entries; the caller has the gate alone.</summary>
    public async Task GrowL1Async(int count)
    {
        await SettleAsync();
        if (count > _l1.Count)
            await MoveL1Async(count);
    }

    /// <summary>Puts the L1 table where it has room for more entries, and the header after it.</summary>
    private async Task MoveL1Async(int count)
    {
        long bytes = (long)count * sizeof(ulong);
        HostRun run = await Allocator.ReserveExactlyAsync((int)Geometry.ClusterCount(bytes));
        HostOffset start = Geometry.OffsetOf(run.First);
        // The new table is written by the flush like any other change; the header leads to it only after that.
        _l1.Move(start, count);
        Published.Grow(count);
        Map.SetRange(MetadataMap.ActiveL1, start, bytes);
        await Order.FlushAsync();
        byte[] fields = new byte[HeaderField.RefcountTableOffset - HeaderField.L1Size];
        HeaderField.WriteUInt32(fields, 0, (uint)count);
        HeaderField.WriteUInt64(fields, HeaderField.L1TableOffset - HeaderField.L1Size, (ulong)start.Bytes);
        await Order.WriteHeaderAsync(HeaderField.L1Size, fields);
        (HostOffset oldTable, int oldCount) = (Header.L1Table, Header.L1EntryCount);
        Header = Header with { L1Table = start, L1EntryCount = count };
        if (oldCount > 0)
            Freed.Add(Geometry.ClusterOf(oldTable), Geometry.ClusterCount(oldCount * (long)sizeof(ulong)), Discards.Passes(DiscardType.Other));
        await SettleAsync();
    }

    private static async Task<PointerTable> LoadTableAsync(IBlockFile file, HostOffset offset, long bytes)
    {
        byte[] stored = GC.AllocateUninitializedArray<byte>((int)bytes);
        // What a table would hold past the end of the file is zeros: no need to ask for it.
        int inFile = (int)Math.Clamp(file.LengthBytes - offset.Bytes, 0, bytes);
        stored.AsSpan(inFile).Clear();
        await file.ReadAsync(offset.Bytes, stored.AsMemory(0, inFile));
        return new PointerTable(offset, stored);
    }

    private static void MapTables(PointerTable l1, PointerTable refcountTable, MetadataMap map, ClusterGeometry geometry)
    {
        map.AddL2Tables(TablesOf(l1, geometry));
        var blocks = new List<long>();
        for (int index = 0; index < refcountTable.Count; index++)
        {
            if (new RefcountTableEntry(refcountTable[index]) is { IsAllocated: true } entry)
                blocks.Add(geometry.ClusterOf(entry.Block).Index);
        }
        map.AddRefcountBlocks(blocks);
    }

    /// <summary>The clusters of the L2 tables that an L1 table leads to.</summary>
    private static List<long> TablesOf(PointerTable l1, ClusterGeometry geometry)
    {
        var tables = new List<long>();
        for (int index = 0; index < l1.Count; index++)
        {
            if (new L1Entry(l1[index]) is { IsAllocated: true } entry)
                tables.Add(geometry.ClusterOf(entry.L2Table).Index);
        }
        return tables;
    }

    /// <exception cref="Qcow2FormatException">The snapshot table is damaged.</exception>
    private static async Task<IReadOnlyList<SnapshotEntry>> MapSnapshotsAsync(IBlockFile file, Header header, MetadataMap map)
    {
        IReadOnlyList<SnapshotEntry> snapshots = await DirectoryReader.ReadSnapshotsAsync(file, header);
        long tableBytes = 0;
        foreach (SnapshotEntry snapshot in snapshots)
        {
            tableBytes = ((tableBytes + 7) & ~7L) + snapshot.StoredBytes;
            long bytes = Math.Min(snapshot.L1EntryCount * (long)sizeof(ulong), file.LengthBytes - snapshot.L1Table.Bytes);
            if (snapshot.L1Table.Bytes < 0 || bytes <= 0)
                continue;
            map.AddInactiveL1(snapshot.L1Table, bytes);
            if (map.WantsInactiveL2 && bytes <= ClusterGeometry.MaxL1Bytes)
                map.AddInactiveL2Tables(TablesOf(await LoadTableAsync(file, snapshot.L1Table, bytes & ~7L), header.Geometry));
        }
        map.SetRange(MetadataMap.SnapshotTable, header.SnapshotTable, tableBytes);
        return snapshots;
    }

    private static void MapBitmaps(Header header, MetadataMap map)
    {
        if (header.Autoclear.HasFlag(AutoclearFeatures.Bitmaps) && header.Find(HeaderExtensionType.Bitmaps) is { } stored)
        {
            var bitmaps = BitmapsExtension.Parse(stored.Data, header.Geometry);
            map.SetRange(MetadataMap.BitmapDirectory, bitmaps.Directory, bitmaps.DirectoryBytes);
        }
    }

    private void OnClusterFreed(HostCluster cluster)
    {
        FreedCount++;
        CompressedSpace.Leave(cluster);
        if (!Map.RemoveL2Table(cluster))
            return;
        HostOffset table = Geometry.OffsetOf(cluster);
        for (int slice = 0; slice < Geometry.L2SliceCount; slice++)
            _l2Cache.Forget(table + ((long)slice * Geometry.L2SliceBytes));
    }

    private void Release()
    {
        // A release may itself cause a write-back, whose end calls this again: the one under way goes on then.
        if (_isReleasing)
            return;
        _isReleasing = true;
        _release = ReleaseAsync();
    }

    private async Task ReleaseAsync()
    {
        try
        {
            while (!Health.HasFailed && Freed.TakeReleasable() is { } runs)
            {
                foreach (FreedRun run in runs)
                    await Allocator.ReleaseAsync(run);
            }
        }
        catch (Exception e)
        {
            // Stopping here leaks clusters and nothing else; going on with refcounts in doubt could do worse.
            Health.Fail(e);
        }
        finally
        {
            _isReleasing = false;
        }
    }
}
