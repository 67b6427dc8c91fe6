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
            var entry = SnapshotEntry.Parse((await window.PeekAsync()).Span, index);
            if (window.Position + entry.StoredBytes > MaxSnapshotTableBytes)
                throw TooManySnapshots(header.SnapshotCount - index);
            entries.Add(entry);
            window.Advance((entry.StoredBytes + 7) & ~7);
        }
        return entries;
    }

    /// <summary>The snapshot table has more bytes than are read.</summary>
    /// <param name="count">How many snapshots there are from the one that is cut off.</param>
    internal static Qcow2FormatException TooManySnapshots(int count) => new(
        $"Snapshot table is too big\nYou can force-remove all {count} overhanging snapshots with qemu-img check -r all");

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
