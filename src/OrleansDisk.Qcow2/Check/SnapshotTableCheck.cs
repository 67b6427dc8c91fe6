using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Qcow2.Check;

/// <summary>Reads the snapshot table and counts it and what its snapshots keep.</summary>
internal sealed class SnapshotTableCheck(
    IBlockFile file, Header header, ReferenceCounts references, MappingCheck mapping, CheckLog log)
{
    /// <summary>Longest entry: 40 bytes, 1 KiB of extra data, two strings of 64 KiB, padding.</summary>
    private const int MaxEntryBytes = SnapshotEntry.FixedBytes + SnapshotEntry.MaxExtraDataBytes + (2 * 65535) + 8;
    private const long MaxTableBytes = 64L << 20;

    /// <summary>Reads the table; what is wrong with an entry is reported, and an entry that has no end ends it.</summary>
    public async Task<IReadOnlyList<SnapshotEntry>> ReadAsync()
    {
        var entries = new List<SnapshotEntry>();
        var reader = new EntryWindow(file, header.SnapshotTable.Bytes, MaxEntryBytes);
        for (int index = 0; index < header.SnapshotCount; index++)
        {
            SnapshotEntry entry;
            try
            {
                if (TableBytes > MaxTableBytes)
                    throw new Qcow2FormatException("Snapshot table is too large");
                entry = SnapshotEntry.Parse((await reader.PeekAsync()).Span, index);
            }
            catch (Qcow2FormatException e)
            {
                log.CheckError($"ERROR failed to read the snapshot table: {e.Message}");
                break;
            }
            TableBytes = reader.Position + entry.StoredBytes;
            reader.Advance((entry.StoredBytes + 7) & ~7);
            if (header.Version >= 3 && entry.VirtualBytes is null)
                log.Corruption($"ERROR snapshot table entry {index} is incomplete");
            entries.Add(entry);
        }
        return entries;
    }

    /// <summary>Bytes of the entries that could be read.</summary>
    public long TableBytes { get; private set; }

    /// <summary>Counts the L1 tables of snapshots, and all below them.</summary>
    public async Task CountSnapshotsAsync(IReadOnlyList<SnapshotEntry> snapshots)
    {
        foreach (SnapshotEntry snapshot in snapshots)
        {
            long offset = snapshot.L1Table.Bytes;
            if (offset < 0 || !header.Geometry.IsAligned(offset))
            {
                log.Corruption($"ERROR snapshot {snapshot.Id} ({snapshot.Name}) l1_offset=0x{offset:x}: "
                    + "L1 table is not cluster aligned; snapshot table entry corrupted");
            }
            else if (snapshot.L1EntryCount > ClusterGeometry.MaxL1Bytes / sizeof(ulong))
            {
                log.Corruption($"ERROR snapshot {snapshot.Id} ({snapshot.Name}) l1_size=0x{snapshot.L1EntryCount:x}: "
                    + "L1 table is too large; snapshot table entry corrupted");
            }
            else
            {
                await mapping.CountL1TableAsync(offset, snapshot.L1EntryCount, isActive: false);
            }
        }
    }

    public void CountTable() => references.Add(header.SnapshotTable.Bytes, TableBytes, ClusterUse.SnapshotTable);
}
