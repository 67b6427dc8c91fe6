using System.Buffers;
using System.Buffers.Binary;
using System.Runtime.InteropServices;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Metadata;

namespace OrleansDisk.Qcow2.Bitmaps;

/// <summary>
/// Writes bitmaps: new bits, tables and a new directory beside the old ones, barrier, the header, barrier; then what the old
/// ones held is free (docs/consistency.md, W10). Clusters of bits that did not change are kept. The caller is alone.
/// </summary>
internal sealed class BitmapStore(ImageMetadata metadata, BitmapReader reader)
{
    private readonly ClusterGeometry _geometry = metadata.Geometry;

    /// <summary>Where the directory lies on disk; of 0 bytes when there is none.</summary>
    public BitmapsExtension Directory { get; set; }

    /// <summary>Brings the disk up to date.</summary>
    /// <param name="bitmaps">All bitmaps that there are to be.</param>
    /// <param name="removed">Those that were removed since the last time.</param>
    /// <param name="areInUse">Whether those that are enabled go on being set: what is on disk of them then means nothing.</param>
    /// <exception cref="NoSpaceException">The file can't grow; nothing has changed.</exception>
    public async Task StoreAsync(IReadOnlyList<DirtyBitmap> bitmaps, IReadOnlyList<DirtyBitmap> removed, bool areInUse)
    {
        await metadata.EndViewAsync(); // a check under way begins again
        var change = new Change();
        try
        {
            foreach (DirtyBitmap bitmap in bitmaps)
                await StoreAsync(bitmap, areInUse, change);
            if (!change.IsOfFlagsOnly || removed.Count > 0)
                await StoreDirectoryAsync(change);
            foreach (DirtyBitmap bitmap in removed)
                await FreeAllAsync(bitmap, change);
            EnsureFreeable(change);
            if (change.IsOfFlagsOnly && removed.Count == 0)
                await WriteFlagsAsync(change.Entries);
            else
                await SwitchAsync(change);
        }
        catch (Exception) when (!metadata.Health.HasFailed)
        {
            foreach ((HostCluster first, int count) in change.Reserved)
                await metadata.Allocator.AbandonAsync(first, count);
            throw;
        }
        foreach ((DirtyBitmap bitmap, BitmapEntry entry, BitmapTableEntry[]? table) in change.Entries)
        {
            if (table is not null)
                bitmap.NoteStored(entry, table);
            bitmap.Stored = entry;
        }
    }

    /// <summary>Marks all bitmaps in use, those that are disabled too.</summary>
    public async Task MarkInUseAsync(IReadOnlyList<DirtyBitmap> bitmaps)
    {
        await metadata.EndViewAsync();
        var entries = new List<(DirtyBitmap Bitmap, BitmapEntry Entry, BitmapTableEntry[]? Table)>();
        foreach (DirtyBitmap bitmap in bitmaps)
            entries.Add((bitmap, bitmap.Stored with { Flags = bitmap.Stored.Flags | BitmapFlags.InUse }, null));
        await WriteFlagsAsync(entries);
        foreach ((DirtyBitmap bitmap, BitmapEntry entry, _) in entries)
            bitmap.Stored = entry;
    }

    private async Task StoreAsync(DirtyBitmap bitmap, bool areInUse, Change change)
    {
        BitmapEntry stored = bitmap.Stored;
        bool writesBits = stored.TableOffset == 0 || (bitmap.HasChanged && !bitmap.IsInconsistent && !(areInUse && bitmap.IsEnabled));
        if (writesBits)
            await TryLoadTableAsync(bitmap);
        bool staysInUse = bitmap.IsInconsistent || (areInUse && bitmap.IsEnabled);
        BitmapFlags flags = (stored.Flags & ~(BitmapFlags.InUse | BitmapFlags.Auto))
            | (bitmap.IsEnabled ? BitmapFlags.Auto : 0) | (staysInUse ? BitmapFlags.InUse : 0);
        if (!writesBits || bitmap.IsInconsistent)
        {
            change.Entries.Add((bitmap, stored with { Flags = flags }, null));
            return;
        }
        BitmapTableEntry[] table = await StoreBitsAsync(bitmap, change);
        HostOffset offset = await StoreTableAsync(table, change);
        change.Entries.Add((bitmap, stored with
        {
            Flags = flags,
            TableOffset = (ulong)offset.Bytes,
            TableEntryCount = (uint)table.Length,
        }, table));
        change.IsOfFlagsOnly = false;
        FreeTable(bitmap, keeps: table, change);
    }

    /// <summary>A bitmap whose table is damaged can't be stored: it stays in use, and means nothing.</summary>
    private async Task TryLoadTableAsync(DirtyBitmap bitmap)
    {
        try
        {
            await reader.LoadTableAsync(bitmap);
        }
        catch (Qcow2FormatException)
        {
            bitmap.IsInconsistent = true;
        }
    }

    private async Task<BitmapTableEntry[]> StoreBitsAsync(DirtyBitmap bitmap, Change change)
    {
        var table = new BitmapTableEntry[bitmap.PageCount];
        for (int page = 0; page < table.Length; page++)
        {
            if (bitmap.Page(page) is null)
            {
                table[page] = bitmap.Basis![page];
                continue;
            }
            ulong[] words = await reader.LoadPageAsync(bitmap, page);
            int bits = bitmap.BitsOf(page);
            if (DirtyBitmap.CountAlike(words, 0, bits, out bool isSet) == bits)
            {
                table[page] = isSet ? BitmapTableEntry.AllOnes : BitmapTableEntry.AllZeros;
                continue;
            }
            HostOffset cluster = await ReserveAsync(_geometry.ClusterBytes, change);
            byte[] bytes = ArrayPool<byte>.Shared.Rent(_geometry.ClusterBytes);
            try
            {
                MemoryMarshal.AsBytes(words.AsSpan()).CopyTo(bytes);
                await metadata.File.WriteAsync(cluster.Bytes, bytes.AsMemory(0, _geometry.ClusterBytes));
            }
            finally
            {
                ArrayPool<byte>.Shared.Return(bytes);
            }
            table[page] = BitmapTableEntry.To(cluster);
        }
        return table;
    }

    private async Task<HostOffset> StoreTableAsync(BitmapTableEntry[] table, Change change)
    {
        long bytes = _geometry.RoundUp((long)table.Length * sizeof(ulong));
        HostOffset offset = await ReserveAsync(bytes, change);
        byte[] stored = new byte[bytes];
        for (int i = 0; i < table.Length; i++)
            BinaryPrimitives.WriteUInt64BigEndian(stored.AsSpan(i * sizeof(ulong)), table[i].Raw);
        await metadata.File.WriteAsync(offset.Bytes, stored);
        return offset;
    }

    private async Task StoreDirectoryAsync(Change change)
    {
        FreeDirectory(change);
        if (change.Entries.Count == 0)
            return;
        byte[] directory = BitmapDirectory.Write([.. change.Entries.Select(one => one.Entry)]);
        byte[] padded = new byte[_geometry.RoundUp(directory.Length)];
        directory.CopyTo(padded, 0);
        HostOffset offset = await ReserveAsync(padded.Length, change);
        await metadata.File.WriteAsync(offset.Bytes, padded);
        change.Directory = new BitmapsExtension(change.Entries.Count, directory.Length, offset);
    }

    /// <summary>
    /// Flags alone change where they are: those of each entry lie in one sector, and whatever of them a crash leaves, every
    /// entry is what it was or what it is to be.
    /// </summary>
    private async Task WriteFlagsAsync(List<(DirtyBitmap Bitmap, BitmapEntry Entry, BitmapTableEntry[]? Table)> entries)
    {
        if (entries.TrueForAll(one => one.Entry.Flags == one.Bitmap.Stored.Flags))
            return;
        byte[] directory = BitmapDirectory.Write([.. entries.Select(one => one.Entry)]);
        await metadata.Order.BetweenWriteBacksAsync(() => metadata.Order.WriteInPlaceAsync(Directory.Directory, directory));
    }

    private async Task SwitchAsync(Change change)
    {
        metadata.Order.NoteDataWritten();
        await metadata.Order.FlushAsync();
        await metadata.ReplaceHeaderAsync(header => WithDirectory(header, change.Directory));
        Directory = change.Directory;
        metadata.Map.SetRange(MetadataMap.BitmapDirectory, Directory.Directory, Directory.DirectoryBytes);
        foreach ((HostCluster first, long count) in change.Freed)
            metadata.Freed.Add(first, count, metadata.Discards.Passes(DiscardType.Other));
    }

    /// <summary>A header whose bitmaps are those of a directory, or that has none.</summary>
    internal static Header WithDirectory(Header header, BitmapsExtension directory)
    {
        List<HeaderExtension> extensions = [.. header.Extensions.Where(extension => extension.Type != HeaderExtensionType.Bitmaps)];
        if (directory.Count > 0)
            extensions.Add(directory.ToHeaderExtension());
        AutoclearFeatures others = header.Autoclear & ~AutoclearFeatures.Bitmaps;
        return header with
        {
            Extensions = extensions,
            Autoclear = directory.Count > 0 ? others | AutoclearFeatures.Bitmaps : others,
        };
    }

    private async ValueTask<HostOffset> ReserveAsync(long bytes, Change change)
    {
        HostRun run = await metadata.Allocator.ReserveExactlyAsync((int)_geometry.ClusterCount(bytes));
        change.Reserved.Add((run.First, run.Count));
        return _geometry.OffsetOf(run.First);
    }

    /// <summary>Frees a removed bitmap; one whose table is damaged leaks what that may have led to.</summary>
    private async Task FreeAllAsync(DirtyBitmap bitmap, Change change)
    {
        if (bitmap.Stored.TableOffset == 0)
            return;
        try
        {
            bitmap.StoredTable ??= await reader.ReadTableAsync(bitmap.Stored);
        }
        catch (Qcow2FormatException)
        {
            return;
        }
        FreeTable(bitmap, keeps: [], change);
    }

    /// <summary>Frees a bitmap's table on disk, with the clusters that the new one does not have.</summary>
    private void FreeTable(DirtyBitmap bitmap, BitmapTableEntry[] keeps, Change change)
    {
        if (bitmap.Stored.TableOffset == 0)
            return;
        BitmapTableEntry[] table = bitmap.StoredTable!;
        for (int page = 0; page < table.Length; page++)
        {
            if (table[page].HasCluster && (page >= keeps.Length || keeps[page] != table[page]))
                change.Freed.Add((_geometry.ClusterOf(table[page].Cluster), 1));
        }
        change.Freed.Add((_geometry.ClusterOf(new HostOffset((long)bitmap.Stored.TableOffset)), _geometry.ClusterCount((long)table.Length * sizeof(ulong))));
    }

    private void FreeDirectory(Change change)
    {
        if (Directory.DirectoryBytes > 0)
            change.FreedDirectory = (_geometry.ClusterOf(Directory.Directory), _geometry.ClusterCount(Directory.DirectoryBytes));
    }

    /// <summary>Refuses to free metadata that a damaged table leads to (W8).</summary>
    private void EnsureFreeable(Change change)
    {
        foreach ((HostCluster first, long count) in change.Freed)
        {
            if (metadata.Map.Find(first, count) is { } name)
                throw new MetadataDamagedException($"Preventing invalid free of metadata ({name}) at offset {_geometry.OffsetOf(first)}");
        }
        if (change.FreedDirectory.Count > 0)
            change.Freed.Add(change.FreedDirectory);
    }

    /// <summary>What one call writes and gives up.</summary>
    private sealed class Change
    {
        public List<(DirtyBitmap Bitmap, BitmapEntry Entry, BitmapTableEntry[]? Table)> Entries { get; } = [];

        public List<(HostCluster First, int Count)> Reserved { get; } = [];

        public List<(HostCluster First, long Count)> Freed { get; } = [];

        public (HostCluster First, long Count) FreedDirectory { get; set; }

        public BitmapsExtension Directory { get; set; }

        /// <summary>Whether the directory stays where it is.</summary>
        public bool IsOfFlagsOnly { get; set; } = true;
    }
}
