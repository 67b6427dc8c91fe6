using System.Globalization;
using System.Text;
using OrleansDisk.Qcow2.Format;

namespace OrleansDisk.Qcow2.Snapshots;

/// <summary>What concerns the snapshot table as a whole: its limits, ids and names, its bytes.</summary>
internal static class SnapshotTable
{
    /// <summary>Largest table that is written or read, in bytes (QEMU's limit).</summary>
    private const long MaxBytes = 64L << 20;

    /// <summary>The snapshot with this id or, if none has it, with this name.</summary>
    /// <exception cref="SnapshotException">There is none.</exception>
    public static SnapshotEntry Find(IReadOnlyList<SnapshotEntry> snapshots, string idOrName) =>
        snapshots.FirstOrDefault(snapshot => snapshot.Id == idOrName)
            ?? snapshots.FirstOrDefault(snapshot => snapshot.Name == idOrName)
            ?? throw new SnapshotException(SnapshotError.NotFound, $"there is no snapshot '{idOrName}'");

    /// <summary>The snapshot that has what the selector says.</summary>
    /// <exception cref="SnapshotException">There is none.</exception>
    public static SnapshotEntry Find(IReadOnlyList<SnapshotEntry> snapshots, SnapshotSelector selector) =>
        selector.IdOrName is { } either ? Find(snapshots, either)
            : snapshots.FirstOrDefault(snapshot => (selector.Id ?? snapshot.Id) == snapshot.Id && (selector.Name ?? snapshot.Name) == snapshot.Name)
                ?? throw new SnapshotException(SnapshotError.NotFound, "Can't find snapshot");

    /// <exception cref="Qcow2FormatException">The snapshot's L1 table lies where none can, or is too long.</exception>
    public static void ValidateL1(SnapshotEntry snapshot, ClusterGeometry geometry)
    {
        long bytes = snapshot.L1EntryCount * (long)sizeof(ulong);
        if (bytes > ClusterGeometry.MaxL1Bytes)
            throw new Qcow2FormatException("Snapshot L1 table too large");
        long offset = snapshot.L1Table.Bytes;
        if (offset < 0 || offset > long.MaxValue - bytes || !geometry.IsAligned(offset))
            throw new Qcow2FormatException("Snapshot L1 table offset invalid");
    }

    /// <summary>One more than the largest number with which an id begins.</summary>
    public static string NextId(IReadOnlyList<SnapshotEntry> snapshots)
    {
        ulong largest = 0;
        foreach (SnapshotEntry snapshot in snapshots)
        {
            int digits = 0;
            while (digits < snapshot.Id.Length && char.IsAsciiDigit(snapshot.Id[digits]))
                digits++;
            if (ulong.TryParse(snapshot.Id.AsSpan(0, digits), NumberStyles.None, CultureInfo.InvariantCulture, out ulong id))
                largest = Math.Max(largest, id);
        }
        return (largest + 1).ToString(CultureInfo.InvariantCulture);
    }

    /// <summary>The bytes of a string in an entry.</summary>
    /// <exception cref="SnapshotException">It is too long.</exception>
    public static byte[] Store(string text)
    {
        byte[] bytes = Encoding.UTF8.GetBytes(text);
        return bytes.Length <= ushort.MaxValue ? bytes
            : throw new SnapshotException(SnapshotError.TooLarge, $"a snapshot's name has at most {ushort.MaxValue} bytes, not {bytes.Length}");
    }

    /// <summary>The table as it lies on disk.</summary>
    /// <exception cref="SnapshotException">It would be too large.</exception>
    public static byte[] Write(IReadOnlyList<SnapshotEntry> snapshots, long virtualBytes)
    {
        long bytes = 0;
        foreach (SnapshotEntry snapshot in snapshots)
            bytes = Aligned(bytes) + snapshot.WrittenBytes;
        if (bytes > MaxBytes || snapshots.Count > Header.MaxSnapshotCount)
        {
            throw new SnapshotException(SnapshotError.TooLarge,
                $"an image has at most {Header.MaxSnapshotCount} snapshots, in a table of at most 64 MiB; delete some first");
        }
        byte[] table = new byte[bytes];
        long at = 0;
        foreach (SnapshotEntry snapshot in snapshots)
        {
            at = Aligned(at);
            snapshot.WriteTo(table.AsSpan((int)at), virtualBytes);
            at += snapshot.WrittenBytes;
        }
        return table;
    }

    private static long Aligned(long bytes) => (bytes + 7) & ~7L;
}
