using OrleansDisk.Qcow2.Format;

namespace OrleansDisk.Qcow2.Io;

/// <summary>Reads the lists that an image keeps of its snapshots and its bitmaps.</summary>
public static class DirectoryReader
{
    /// <summary>Longest snapshot table that is read (QEMU's limit): its names are all in memory.</summary>
    private const long MaxSnapshotTableBytes = 64L << 20;

    private const int MaxSnapshotEntryBytes = SnapshotEntry.FixedBytes + SnapshotEntry.MaxExtraDataBytes + (2 * 65535) + 8;

    /// <summary>The entries of the snapshot table, in order.</summary>
    /// <exception cref="Qcow2FormatException">An entry breaks the specification.</exception>
    public static async Task<IReadOnlyList<SnapshotEntry>> ReadSnapshotsAsync(IBlockFile file, Header header)
    {
        if (header.SnapshotCount == 0)
            return [];
        var entries = new List<SnapshotEntry>();
        var window = new EntryWindow(file, header.SnapshotTable.Bytes, MaxSnapshotEntryBytes);
        for (int index = 0; index < header.SnapshotCount; index++)
        {
            if (header.SnapshotTable.Bytes + window.Position >= file.LengthBytes)
                throw new Qcow2FormatException($"snapshot table entry {index} is incomplete");
            var entry = SnapshotEntry.Parse((await window.PeekAsync()).Span, index);
            if (header.Version >= 3 && entry.VirtualBytes is null)
                throw new Qcow2FormatException($"snapshot table entry {index} is incomplete");
            entries.Add(entry);
            window.Advance((entry.StoredBytes + 7) & ~7);
            if (window.Position > MaxSnapshotTableBytes)
                throw new Qcow2FormatException("Snapshot table is too large");
        }
        return entries;
    }

    /// <summary>The bitmaps of an image; none when the autoclear bit says that they are stale.</summary>
    /// <exception cref="Qcow2FormatException">The directory breaks the specification.</exception>
    public static async Task<IReadOnlyList<BitmapEntry>> ReadBitmapsAsync(IBlockFile file, Header header)
    {
        if (!header.Autoclear.HasFlag(AutoclearFeatures.Bitmaps)
            || header.Find(HeaderExtensionType.Bitmaps) is not { } stored)
        {
            return [];
        }
        var extension = BitmapsExtension.Parse(stored.Data, header.Geometry);
        var entries = new List<BitmapEntry>();
        var window = new EntryWindow(file, extension.Directory.Bytes, BitmapEntry.MaxReadBytes);
        while (entries.Count < extension.Count)
        {
            var entry = BitmapEntry.Parse((await window.PeekAsync()).Span);
            window.Advance(entry.StoredBytes);
            if (window.Position > extension.DirectoryBytes)
                throw new Qcow2FormatException($"bitmap directory ends before entry {entries.Count}");
            entries.Add(entry);
        }
        return entries;
    }
}
