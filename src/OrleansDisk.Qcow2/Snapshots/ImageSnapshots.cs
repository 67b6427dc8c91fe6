using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Metadata;

namespace OrleansDisk.Qcow2.Snapshots;

/// <summary>
/// Takes, applies and deletes internal snapshots. Everything that changes is written where nothing leads; then one write
/// of the header's first sector leads to all of it. What fails or is cancelled before that has changed nothing
/// (docs/consistency.md, "Snapshots"). The caller has the image alone.
/// </summary>
internal sealed class ImageSnapshots(ImageMetadata metadata)
{
    private readonly ClusterGeometry _geometry = metadata.Geometry;

    /// <summary>Takes a snapshot; VM state that it has goes from the disk to it.</summary>
    /// <exception cref="SnapshotException">There is no room for it, or the image has none.</exception>
    public async Task<SnapshotEntry> CreateAsync(SnapshotDescription what, CancellationToken cancellation)
    {
        RefuseUnsupported();
        if (metadata.Snapshots.Count >= Header.MaxSnapshotCount)
            throw new SnapshotException(SnapshotError.TooLarge, $"an image has at most {Header.MaxSnapshotCount} snapshots; delete some first");
        byte[] name = SnapshotTable.Store(what.Name);
        byte[] id = SnapshotTable.Store(SnapshotTable.NextId(metadata.Snapshots));
        await metadata.SettleAsync();
        var revision = new MappingRevision(metadata, cancellation);
        ulong[] active = metadata.L1Entries.ToArray();
        ulong[] kept = new ulong[active.Length];
        int vmStateIndex = (int)_geometry.L1EntryCount(metadata.Header.VirtualBytes);
        for (int index = 0; index < active.Length; index++)
        {
            var entry = new L1Entry(active[index]);
            if (!entry.IsAllocated)
                continue;
            if (index < vmStateIndex || what.VmStateBytes == 0) // VM state that is nobody's yet is shared as the disk is
                active[index] = kept[index] = (await revision.ShareAsync(entry)).Raw;
            else // the disk does not need it any more, and would copy it at its next snapshot
                (active[index], kept[index]) = (0, L1Entry.To(entry.L2Table, copied: false).Raw);
        }
        var snapshot = new SnapshotEntry
        {
            L1Table = await revision.WriteAsync(PointerTable.Store(kept)),
            L1EntryCount = kept.Length,
            StoredId = id,
            StoredName = name,
            DateSeconds = (uint)what.Date.ToUnixTimeSeconds(),
            DateNanoseconds = (uint)(what.Date.Ticks % TimeSpan.TicksPerSecond * 100),
            VmClockNanoseconds = what.VmClockNanoseconds,
            VmStateBytes = what.VmStateBytes,
            VirtualBytes = metadata.Header.DiskBytes,
            InstructionCount = what.InstructionCount,
        };
        await SwitchAsync(revision, active, [.. metadata.Snapshots, snapshot], metadata.Header.VirtualBytes);
        return snapshot;
    }

    /// <summary>Makes the disk what it was when a snapshot was taken, its size and its VM state included.</summary>
    /// <exception cref="SnapshotException">There is no such snapshot.</exception>
    /// <exception cref="Qcow2Exception">Version 2 can't change the disk's size while there are snapshots.</exception>
    public async Task ApplyAsync(string idOrName, CancellationToken cancellation)
    {
        RefuseUnsupported();
        Header header = metadata.Header;
        if (header.Find(HeaderExtensionType.Bitmaps) is not null && header.Autoclear.HasFlag(AutoclearFeatures.Bitmaps))
            throw new SnapshotException(SnapshotError.HasBitmaps, "Device has active dirty bitmaps");
        SnapshotEntry snapshot = SnapshotTable.Find(metadata.Snapshots, idOrName);
        long virtualBytes = snapshot.VirtualBytes ?? header.VirtualBytes;
        if (header.Version < 3 && virtualBytes != header.DiskBytes)
            throw new Qcow2Exception("Can't resize a v2 image which has snapshots");
        long neededCount = virtualBytes < 0 || virtualBytes > long.MaxValue - _geometry.BytesPerL2Table
            ? long.MaxValue : _geometry.L1EntryCount(virtualBytes);
        if (neededCount > ClusterGeometry.MaxL1Bytes / sizeof(ulong))
            throw new Qcow2FormatException($"snapshot {snapshot.Id} says that its disk has {virtualBytes} bytes: that is too large");
        await metadata.SettleAsync();
        var revision = new MappingRevision(metadata, cancellation);
        ulong[] kept = await revision.ReadL1Async(snapshot);
        ulong[] active = new ulong[Math.Max(Math.Max(metadata.L1Entries.Length, kept.Length), neededCount)];
        // References go before they come: what disk and snapshot share never has one more than it will have.
        foreach (ulong raw in metadata.L1Entries.ToArray())
        {
            if (new L1Entry(raw) is { IsAllocated: true } entry)
                await revision.LeaveAsync(entry);
        }
        for (int index = 0; index < kept.Length; index++)
        {
            if (new L1Entry(kept[index]) is { IsAllocated: true } entry)
                active[index] = (await revision.AdoptAsync(entry)).Raw;
        }
        await SwitchAsync(revision, active, metadata.Snapshots, virtualBytes);
    }

    /// <summary>Deletes a snapshot. What it alone held is free when all that is under way has ended.</summary>
    /// <exception cref="SnapshotException">There is no such snapshot.</exception>
    public async Task DeleteAsync(string idOrName, CancellationToken cancellation)
    {
        RefuseUnsupported();
        SnapshotEntry snapshot = SnapshotTable.Find(metadata.Snapshots, idOrName);
        await metadata.SettleAsync();
        var revision = new MappingRevision(metadata, cancellation);
        foreach (ulong raw in await revision.ReadL1Async(snapshot))
        {
            if (new L1Entry(raw) is { IsAllocated: true } entry)
                await revision.LeaveAsync(entry);
        }
        await revision.FreeAsync(snapshot.L1Table, snapshot.L1EntryCount * (long)sizeof(ulong), MetadataMap.InactiveL1);
        ulong[] active = metadata.L1Entries.ToArray();
        for (int index = 0; index < active.Length; index++)
        {
            if (new L1Entry(active[index]) is { IsAllocated: true } entry)
                active[index] = (await revision.ReclaimAsync(entry)).Raw;
        }
        await SwitchAsync(revision, active, [.. metadata.Snapshots.Where(other => other != snapshot)], metadata.Header.VirtualBytes);
    }

    /// <summary>Takes VM state away from the disk that no snapshot was taken with.</summary>
    public async Task DropVmStateAsync()
    {
        ulong[] active = metadata.L1Entries.ToArray();
        int start = (int)Math.Min(_geometry.L1EntryCount(metadata.Header.VirtualBytes), active.Length);
        if (!active.AsSpan(start).ContainsAnyExcept(0UL))
            return;
        await metadata.SettleAsync();
        var revision = new MappingRevision(metadata, CancellationToken.None);
        for (int index = start; index < active.Length; index++)
        {
            if (new L1Entry(active[index]) is { IsAllocated: true } entry)
                await revision.LeaveAsync(entry);
            active[index] = 0;
        }
        await SwitchAsync(revision, active, metadata.Snapshots, metadata.Header.VirtualBytes);
    }

    /// <summary>Writes the table anew, with all that an entry can say: a snapshot that does not know its disk's size has the disk's.</summary>
    public Task CompleteTableAsync()
    {
        long diskBytes = metadata.Header.DiskBytes;
        SnapshotEntry[] snapshots = [.. metadata.Snapshots.Select(snapshot => snapshot with { VirtualBytes = snapshot.VirtualBytes ?? diskBytes })];
        var revision = new MappingRevision(metadata, CancellationToken.None);
        return SwitchAsync(revision, metadata.L1Entries.ToArray(), snapshots, metadata.Header.VirtualBytes);
    }

    /// <summary>Writes what else is new, and switches.</summary>
    private async Task SwitchAsync(
        MappingRevision revision, ulong[] l1Entries, IReadOnlyList<SnapshotEntry> snapshots, long virtualBytes)
    {
        Header header = metadata.Header with { VirtualBytes = virtualBytes };
        if (!metadata.L1Entries.SequenceEqual(l1Entries))
        {
            await revision.FreeAsync(header.L1Table, header.L1EntryCount * (long)sizeof(ulong), MetadataMap.ActiveL1);
            HostOffset place = await revision.WriteAsync(PointerTable.Store(l1Entries));
            header = header with { L1Table = place, L1EntryCount = l1Entries.Length };
        }
        long tableBytes = metadata.Map.BytesOf(MetadataMap.SnapshotTable);
        if (!ReferenceEquals(snapshots, metadata.Snapshots))
        {
            await revision.FreeAsync(header.SnapshotTable, tableBytes, MetadataMap.SnapshotTable);
            byte[] table = SnapshotTable.Write(snapshots, metadata.Header.DiskBytes);
            header = header with { SnapshotTable = await revision.WriteAsync(table), SnapshotCount = snapshots.Count };
            tableBytes = table.Length;
        }
        await revision.Refcounts.WriteAsync();
        await metadata.SwitchAsync(new MetadataRevision(header, l1Entries, revision.Refcounts, snapshots, tableBytes));
    }

    private void RefuseUnsupported()
    {
        if (_geometry.HasExternalData)
            throw new SnapshotException(SnapshotError.NotSupported, $"'{metadata.File.Name}' has an external data file, which snapshots don't go with");
    }
}
