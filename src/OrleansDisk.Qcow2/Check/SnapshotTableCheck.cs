using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Qcow2.Check;

/// <summary>The snapshot table as far as it can be read.</summary>
/// <param name="Entries">Its entries.</param>
/// <param name="TableBytes">The bytes that they take.</param>
internal sealed record SnapshotTable(IReadOnlyList<SnapshotEntry> Entries, long TableBytes)
{
    /// <summary>Longest table that is read (QEMU's limit).</summary>
    public const long MaxBytes = 64L << 20;
}

/// <summary>Reads the snapshot table and counts it and what its snapshots keep.</summary>
internal sealed class SnapshotTableCheck(
    IBlockFile file, Header header, ReferenceCounts references, MappingCheck mapping, CheckLog log)
{
    private const string TooLarge = "File too large";

    /// <summary>Longest entry: 40 bytes, 1 KiB of extra data, two strings of 64 KiB, padding.</summary>
    private const int MaxEntryBytes = SnapshotEntry.FixedBytes + SnapshotEntry.MaxExtraDataBytes + (2 * 65535) + 8;

    /// <summary>Reads the table; an entry that is not complete is reported.</summary>
    /// <exception cref="SnapshotTableException">It can't be read to its end.</exception>
    public async Task<SnapshotTable> ReadAsync()
    {
        ThrowIfMisplaced();
        var entries = new List<SnapshotEntry>();
        long tableBytes = 0;
        var reader = new EntryWindow(file, header.SnapshotTable.Bytes, MaxEntryBytes);
        for (int index = 0; index < header.SnapshotCount; index++)
        {
            SnapshotEntry entry;
            try
            {
                entry = SnapshotEntry.Parse((await reader.PeekAsync()).Span, index);
                tableBytes = reader.Position + entry.StoredBytes;
                if (tableBytes > SnapshotTable.MaxBytes)
                    throw DirectoryReader.TooManySnapshots(header.SnapshotCount - index);
            }
            catch (Qcow2FormatException e)
            {
                throw new SnapshotTableException($"ERROR failed to read the snapshot table: {e.Message}", TooLarge);
            }
            reader.Advance((entry.StoredBytes + 7) & ~7);
            if (header.Version >= 3 && entry.VirtualBytes is null)
                log.Corruption($"ERROR snapshot table entry {index} is incomplete");
            entries.Add(entry);
        }
        return new SnapshotTable(entries, tableBytes);
    }

    /// <summary>Refuses what the header says of the table when none can be so.</summary>
    private void ThrowIfMisplaced()
    {
        if (header.SnapshotCount > Header.MaxSnapshotCount)
        {
            throw new SnapshotTableException(
                $"ERROR snapshot table too large\nYou can force-remove all {header.SnapshotCount - Header.MaxSnapshotCount} "
                + "overhanging snapshots with qemu-img check -r all", TooLarge);
        }
        long offset = header.SnapshotTable.Bytes;
        if (offset < 0 || !header.Geometry.IsAligned(offset))
            throw new SnapshotTableException("ERROR snapshot table offset invalid", "Invalid argument");
    }

    /// <summary>Counts the L1 tables of snapshots, and all below them.</summary>
    public async Task CountSnapshotsAsync(IReadOnlyList<SnapshotEntry> snapshots)
    {
        foreach (SnapshotEntry snapshot in snapshots)
        {
            long offset = snapshot.L1Table.Bytes;
            if (offset < 0 || !header.Geometry.IsAligned(offset))
            {
                references.MarkIncomplete();
                log.Corruption($"ERROR snapshot {snapshot.Id} ({snapshot.Name}) l1_offset=0x{offset:x}: "
                    + "L1 table is not cluster aligned; snapshot table entry corrupted");
            }
            else if (snapshot.L1EntryCount > ClusterGeometry.MaxL1Bytes / sizeof(ulong))
            {
                references.MarkIncomplete();
                log.Corruption($"ERROR snapshot {snapshot.Id} ({snapshot.Name}) l1_size=0x{snapshot.L1EntryCount:x}: "
                    + "L1 table is too large; snapshot table entry corrupted");
            }
            else
            {
                await mapping.CountL1TableAsync(offset, snapshot.L1EntryCount, isActive: false);
            }
        }
    }
}
