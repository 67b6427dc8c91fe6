using OrleansDisk.Qcow2.Concurrency;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Qcow2.Metadata;

namespace OrleansDisk.Qcow2.Data;

/// <summary>Makes ranges read as zeros by their entries alone where it can, and discards clusters.</summary>
/// <param name="metadata">The image's metadata.</param>
/// <param name="reader">Reads the disk.</param>
/// <param name="writer">Writes what entries can't say.</param>
/// <param name="backing">What lies below the image, or null.</param>
/// <param name="notesAll">See <see cref="Qcow2OpenOptions.NotesAllZeroes"/>.</param>
internal sealed class GuestZeroes(ImageMetadata metadata, GuestReader reader, GuestWriter writer, IDiskSource? backing, bool notesAll)
{
    /// <summary>L2 tables that are removed before their clusters are freed.</summary>
    private const int TablesPerWriteBack = 64;

    private readonly ClusterGeometry _geometry = metadata.Geometry;
    private readonly RawDataZeroes _rawData = new(metadata, writer);

    /// <summary>Whether zeros get an entry even where everything reads as zeros already; version 2 has none for them.</summary>
    private readonly bool _notesAll = notesAll && metadata.Header.Version >= 3;

    /// <summary>What becomes of an entry.</summary>
    private enum Change
    {
        /// <summary>Zeros; the host cluster is kept for later writes.</summary>
        ZeroKeep,

        /// <summary>Zeros; the host cluster is freed.</summary>
        ZeroUnmap,

        /// <summary>Zeros, even where nothing else shows now: another backing file is about to.</summary>
        Hide,

        /// <summary>The host cluster is freed; version 2 has no other word for that than unallocated.</summary>
        Discard,

        /// <summary>The host cluster is freed, and the entry says nothing: the guest cluster is not of the disk any more.</summary>
        Remove,
    }

    /// <summary>Makes a range inside the disk read as zeros. The caller is inside the gate.</summary>
    /// <param name="offset">First byte.</param>
    /// <param name="bytes">Length of the range.</param>
    /// <param name="mayUnmap">Whether host clusters may be freed; else they are kept.</param>
    public async ValueTask WriteZeroesAsync(GuestOffset offset, long bytes, bool mayUnmap)
    {
        if (metadata.IsDataFileRaw)
        {
            await _rawData.ZeroAsync(offset, bytes, mayUnmap);
            return;
        }
        GuestOffset end = offset + bytes;
        while (offset.Bytes < end.Bytes)
        {
            GuestCluster cluster = _geometry.ClusterOf(offset);
            long wholeCount = WholeClusterCount(offset, end);
            if (wholeCount > 0 && CanSayZero(mayUnmap))
            {
                await ChangeAsync(cluster, wholeCount, mayUnmap ? Change.ZeroUnmap : Change.ZeroKeep);
                offset = _geometry.OffsetOf(cluster + wholeCount);
                continue;
            }
            int subclusterCount = WholeSubclusterCount(offset, end);
            if (subclusterCount > 0 && await ZeroSubclustersAsync(cluster, offset, subclusterCount, mayUnmap))
            {
                offset += (long)subclusterCount << _geometry.SubclusterBits;
                continue;
            }
            long partBytes = Math.Min(end.Bytes, PartEnd(offset, subclusterCount)) - offset.Bytes;
            if (!await TryZeroAroundAsync(cluster, offset, partBytes, mayUnmap))
                await ZeroPartAsync(cluster, offset, partBytes);
            offset += partBytes;
        }
    }

    /// <summary>
    /// Frees the whole clusters of a range inside the disk; they then read as zeros. Parts of clusters are left alone,
    /// and so is everything where version 2 would let the backing file show through. The caller is inside the gate.
    /// </summary>
    public async ValueTask DiscardAsync(GuestOffset offset, long bytes)
    {
        if (metadata.Header.Version < 3 && backing is not null)
            return;
        GuestOffset end = offset + bytes;
        var first = new GuestCluster(_geometry.ClusterCount(offset.Bytes));
        long count = WholeClusterCount(_geometry.OffsetOf(first), end);
        if (count == 0)
            return;
        GuestOffset start = _geometry.OffsetOf(first);
        if (metadata.IsDataFileRaw)
            await _rawData.ZeroAsync(start, Math.Min(count << _geometry.ClusterBits, metadata.Header.DiskBytes - start.Bytes), mayUnmap: true);
        else
            await ChangeAsync(first, count, Change.Discard);
    }

    /// <summary>
    /// Makes a range read as zeros whatever lies below the image. False, and nothing has changed, if entries can't say so: it
    /// has to be written as data. The caller is inside the gate.
    /// </summary>
    public async ValueTask<bool> TryHideBackingAsync(GuestOffset offset, long bytes)
    {
        GuestOffset end = offset + bytes;
        long count = WholeClusterCount(offset, end);
        GuestCluster first = _geometry.ClusterOf(offset);
        bool isWhole = end.Bytes >= metadata.Header.DiskBytes || _geometry.OffsetOf(first + count).Bytes == end.Bytes;
        if (metadata.Header.Version < 3 || count == 0 || !isWhole)
            return false;
        await ChangeAsync(first, count, Change.Hide);
        return true;
    }

    /// <summary>Takes out all that lies behind the end of a disk that became smaller; the caller has the gate alone.</summary>
    /// <param name="first">The first cluster behind the end.</param>
    /// <param name="end">Behind the last one that the disk had.</param>
    public async ValueTask RemoveAsync(GuestCluster first, GuestCluster end)
    {
        while (first.Index < end.Index)
        {
            int l2Index = _geometry.L2Index(first);
            int l1Index = _geometry.L1Index(first);
            long inTable = Math.Min(end.Index - first.Index, _geometry.L2EntryCount - l2Index);
            if (l2Index == 0)
                await metadata.L2Tables.RemoveAsync(l1Index, Free);
            else if (metadata.L2Tables.IsAllocated(first))
                await ChangeAsync(first, inTable, Change.Remove);
            first += inTable;
            if (l1Index % TablesPerWriteBack == 0)
                await metadata.SettleAsync(); // what was freed waits in memory until then
        }

        void Free(L2Entry entry)
        {
            metadata.EnsureFreeable(entry);
            metadata.FreeClustersOf(entry, DiscardType.Always);
        }
    }

    /// <summary>Whether clusters that say zero lose their space when more zeros are written.</summary>
    private bool GivesUpZeroClusters => !_geometry.HasSubclusters && !metadata.Discards.KeepsDiscardedClusters;

    private bool CanSayZero(bool mayUnmap) => metadata.Header.Version >= 3 || (mayUnmap && backing is null);

    /// <summary>Clusters that lie whole in the range; the last one of the disk may be cut by the disk's end.</summary>
    private long WholeClusterCount(GuestOffset offset, GuestOffset end)
    {
        if (_geometry.OffsetInCluster(offset) != 0 || end.Bytes <= offset.Bytes)
            return 0;
        long endCluster = end.Bytes >= metadata.Header.DiskBytes
            ? _geometry.ClusterCount(end.Bytes) : _geometry.ClusterOf(end).Index;
        return endCluster - _geometry.ClusterOf(offset).Index;
    }

    /// <summary>Subclusters of one cluster that lie whole in the range; without subclusters there are none to speak of.</summary>
    private int WholeSubclusterCount(GuestOffset offset, GuestOffset end)
    {
        if (!_geometry.HasSubclusters || (offset.Bytes & (_geometry.SubclusterBytes - 1)) != 0)
            return 0;
        long clusterEnd = _geometry.OffsetOf(_geometry.ClusterOf(offset) + 1).Bytes;
        long rangeEnd = end.Bytes >= metadata.Header.DiskBytes ? clusterEnd : end.Bytes;
        return (int)((Math.Min(rangeEnd, clusterEnd) - offset.Bytes) >> _geometry.SubclusterBits);
    }

    /// <summary>Where a part ends that gets zeros as data: with its subcluster, or behind subclusters that can't be zeroed.</summary>
    private long PartEnd(GuestOffset offset, int subclusterCount)
    {
        long start = offset.Bytes & -(long)_geometry.SubclusterBytes;
        return start + ((long)Math.Max(subclusterCount, 1) << _geometry.SubclusterBits);
    }

    /// <summary>Lets some subclusters of a cluster read as zeros. False if it is compressed: it has no subclusters.</summary>
    private async ValueTask<bool> ZeroSubclustersAsync(GuestCluster cluster, GuestOffset offset, int count, bool mayUnmap)
    {
        long bytes = (long)count << _geometry.SubclusterBits;
        while (true)
        {
            if (metadata.Reservations.Find(cluster) is { } other)
            {
                await other.Ended;
                continue;
            }
            if (!_notesAll && !metadata.L2Tables.IsAllocated(cluster) && !reader.MayHoldData(L2Entry.Unallocated, offset, bytes))
                return true;
            using TablePin pin = await metadata.L2Tables.PinForChangeAsync(cluster);
            if (metadata.Reservations.Find(cluster) is not null)
                continue;
            L2Entry old = ClusterRun.ReadEntry(pin.Table, cluster, metadata.Header);
            if (old.Kind(_geometry) == ClusterKind.Compressed)
                return false;
            SubclusterBitmap bitmap = old.Bitmap.WithZeroes(_geometry.SubclusterOf(offset), count);
            if (bitmap == old.Bitmap || (!_notesAll && !reader.MayHoldData(old, offset, bytes)))
                return true;
            bool frees = mayUnmap && bitmap.Allocated == 0;
            Replace(pin.Table, cluster, old, frees ? new L2Entry(0, bitmap) : old with { Bitmap = bitmap });
            return true;
        }
    }

    /// <summary>
    /// Zeros a part of a cluster, or subcluster, by an entry for all of it, when the rest of it reads as zeros as well and
    /// none of it is allocated. False, and nothing has changed, if that can't be.
    /// </summary>
    private async ValueTask<bool> TryZeroAroundAsync(GuestCluster cluster, GuestOffset offset, long bytes, bool mayUnmap)
    {
        if (metadata.Header.Version < 3)
            return false;
        long start = offset.Bytes & -(long)_geometry.SubclusterBytes;
        long end = Math.Min(start + _geometry.SubclusterBytes, metadata.Header.DiskBytes);
        if (bytes > end - offset.Bytes)
            return false;
        var unit = new GuestOffset(start);
        bool frees = mayUnmap && GivesUpZeroClusters;
        while (true)
        {
            if (metadata.Reservations.Find(cluster) is { } other)
            {
                await other.Ended;
                continue;
            }
            ClusterKind kind = (await EntryOfAsync(cluster)).KindAt(_geometry.SubclusterOf(unit), _geometry);
            if (metadata.Reservations.Find(cluster) is not null)
                continue;
            if (kind is not (ClusterKind.Unallocated or ClusterKind.ZeroPlain or ClusterKind.ZeroAllocated))
                return false;
            bool isDone = kind == ClusterKind.Unallocated ? !_notesAll && !reader.ShowsBacking(unit) : kind == ClusterKind.ZeroPlain || !frees;
            if (isDone)
                return true;
            // What lies below does not change: what was found out while others went on stays true.
            if (kind == ClusterKind.Unallocated && !await ShowsZerosAroundAsync(start, offset.Bytes, offset.Bytes + bytes, end))
                return false;
            if (await TryNoteZerosAsync(cluster, unit, kind))
                return true;
        }
    }

    /// <summary>Lets a cluster, or a subcluster, say zero. False if it is not what it was any more, or about to be.</summary>
    private async ValueTask<bool> TryNoteZerosAsync(GuestCluster cluster, GuestOffset unit, ClusterKind expected)
    {
        using TablePin pin = await metadata.L2Tables.PinForChangeAsync(cluster);
        if (metadata.Reservations.Find(cluster) is not null)
            return false;
        L2Entry old = ClusterRun.ReadEntry(pin.Table, cluster, metadata.Header);
        int subcluster = _geometry.SubclusterOf(unit);
        if (old.KindAt(subcluster, _geometry) != expected)
            return false;
        Replace(pin.Table, cluster, old, !_geometry.HasSubclusters ? L2Entry.ZeroPlain(_geometry)
            : old with { Bitmap = old.Bitmap.WithZeroes(subcluster, 1) });
        return true;
    }

    /// <summary>Whether what lies below reads as zeros before and behind a part of a range.</summary>
    private async ValueTask<bool> ShowsZerosAroundAsync(long start, long partStart, long partEnd, long end) =>
        await BackingChain.ReadsAsZerosAsync(backing, start, partStart) && await BackingChain.ReadsAsZerosAsync(backing, partEnd, end);

    private async ValueTask<L2Entry> EntryOfAsync(GuestCluster cluster)
    {
        if (!metadata.L2Tables.IsAllocated(cluster))
            return L2Entry.Unallocated;
        using TablePin pin = await metadata.L2Tables.PinAsync(cluster);
        return ClusterRun.ReadEntry(pin.Table, cluster, metadata.Header);
    }

    private async ValueTask ZeroPartAsync(GuestCluster cluster, GuestOffset offset, long bytes)
    {
        while (metadata.Reservations.Find(cluster) is { } other)
            await other.Ended;
        L2Entry entry = await EntryOfAsync(cluster);
        if (!_notesAll && !reader.MayHoldData(entry, offset, bytes) && metadata.Reservations.Find(cluster) is null)
            return;
        await writer.WriteZeroesAsync(offset, bytes);
    }

    private async ValueTask ChangeAsync(GuestCluster first, long count, Change change)
    {
        while (count > 0)
        {
            int inTable = (int)Math.Min(count, _geometry.L2EntryCount - _geometry.L2Index(first));
            if (!Notes(change) && !metadata.L2Tables.IsAllocated(first) && !reader.ShowsBacking(_geometry.OffsetOf(first))
                && metadata.Reservations.CountFree(first, inTable) == inTable)
            {
                first += inTable;
                count -= inTable;
                continue;
            }
            int inSlice = (int)Math.Min(count, _geometry.L2SliceEntryCount - _geometry.L2SliceIndex(first));
            using TablePin pin = await metadata.L2Tables.PinForChangeAsync(first);
            int free = metadata.Reservations.CountFree(first, inSlice);
            if (free == 0)
            {
                ClusterReservations.Reservation other = metadata.Reservations.Find(first)!;
                await other.Ended;
                continue;
            }
            List<HostRun> kept = [];
            for (int i = 0; i < free; i++)
                ChangeEntry(pin.Table, first + i, change, kept);
            if (_geometry.HasExternalData && change != Change.ZeroKeep)
                await PunchDataAsync(new HostOffset(_geometry.OffsetOf(first).Bytes), free);
            else
                await PunchKeptAsync(kept);
            first += free;
            count -= free;
        }
    }

    /// <param name="table">The table in which the entry is.</param>
    /// <param name="cluster">The guest cluster.</param>
    /// <param name="change">What becomes of the entry.</param>
    /// <param name="kept">Gets the host cluster when it would be freed, but for the option to keep its place.</param>
    private void ChangeEntry(CachedTable table, GuestCluster cluster, Change change, List<HostRun> kept)
    {
        L2Entry old = ClusterRun.ReadEntry(table, cluster, metadata.Header);
        if (KeepsPlace(old, change))
        {
            change = Change.ZeroKeep;
            HostRun.Add(kept, _geometry.ClusterOf(old.Host));
        }
        L2Entry changed = (old.Kind(_geometry), change) switch
        {
            (_, Change.Remove) => L2Entry.Unallocated,
            (ClusterKind.ZeroPlain, _) => old,
            (ClusterKind.Unallocated, _) when !Notes(change) && !reader.MayHoldData(old, _geometry.OffsetOf(cluster), _geometry.ClusterBytes) => old,
            (ClusterKind.ZeroAllocated, Change.ZeroKeep) => old,
            (ClusterKind.Data, Change.ZeroKeep) => old.WithZero(_geometry),
            _ => metadata.Header.Version >= 3 ? L2Entry.ZeroPlain(_geometry) : L2Entry.Unallocated,
        };
        if (changed != old)
            Replace(table, cluster, old, changed);
    }

    /// <summary>Whether a change leaves an entry where nothing is allocated and zeros are read already.</summary>
    private bool Notes(Change change) => change == Change.Hide || (_notesAll && change is (Change.ZeroKeep or Change.ZeroUnmap));

    /// <summary>A cluster that a snapshot has too is given up all the same: the next write needs another one anyway.</summary>
    private bool KeepsPlace(L2Entry entry, Change change) => metadata.Discards.KeepsDiscardedClusters
        && change is Change.Discard or Change.ZeroUnmap && entry.HasHost(_geometry) && entry.IsCopied;

    private async ValueTask PunchKeptAsync(List<HostRun> kept)
    {
        foreach (HostRun run in kept)
            await PunchDataAsync(_geometry.OffsetOf(run.First), run.Count);
    }

    /// <summary>
    /// Gives the space of clusters back that say zero by now, and keep their place. It is a part of the request: what
    /// is written there meanwhile by another one is of that other one's time, and it may end as zeros. Encrypted clusters
    /// keep their space: who still reads them by an older entry, in memory or after a crash, would decipher the hole.
    /// </summary>
    private async ValueTask PunchDataAsync(HostOffset first, int count)
    {
        if (!metadata.Discards.Passes(DiscardType.Request) || metadata.Header.Encryption != EncryptionMethod.None)
            return;
        try
        {
            await metadata.DataFile.PunchHoleAsync(first.Bytes, (long)count << _geometry.ClusterBits);
        }
        catch (BlockFileException)
        {
            // The space stays with the file, which will use it again: nothing is wrong with that.
        }
        finally
        {
            metadata.Order.NoteDataWritten();
        }
    }

    private void Replace(CachedTable table, GuestCluster cluster, L2Entry old, L2Entry changed)
    {
        bool frees = changed.Host != old.Host || old.Kind(_geometry) == ClusterKind.Compressed;
        if (frees)
            metadata.EnsureFreeable(old);
        metadata.L2Tables.Write(table, cluster, changed);
        if (frees)
            metadata.FreeClustersOf(old, DiscardType.Request);
    }

    /// <summary>Host clusters one behind the other.</summary>
    private readonly record struct HostRun(HostCluster First, int Count)
    {
        public static void Add(List<HostRun> runs, HostCluster cluster)
        {
            if (runs.Count > 0 && runs[^1] is var last && last.First.Index + last.Count == cluster.Index)
                runs[^1] = last with { Count = last.Count + 1 };
            else
                runs.Add(new HostRun(cluster, 1));
        }
    }
}
