using System.Buffers.Binary;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Qcow2.Check.Repair;

/// <summary>
/// Reads a snapshot table whatever is wrong with it: snapshots over the limit are given up, extra data over the limit is cut
/// off, extra data that is missing gets the values that it stands for. Only the number of snapshots is written at once.
/// </summary>
internal sealed class SnapshotTableRepair(IBlockFile file, Header header, RepairWriter writer, CheckLog log)
{
    private const int IdLengthField = 12;
    private const int NameLengthField = 14;
    private const int SmallVmStateField = 32;
    private const int ExtraLengthField = 36;
    private const int RequiredExtraBytes = 16;
    private const int KnownExtraBytes = 24;

    private readonly List<byte[]> _entries = [];
    private long _newBytes;

    /// <summary>The table as it is to be counted.</summary>
    public SnapshotTable Table { get; private set; } = new([], 0);

    /// <summary>Corruptions that writing the table anew will end.</summary>
    public long DamageCount { get; private set; }

    public bool IsDamaged => DamageCount > 0;

    /// <summary>Reads the table.</summary>
    /// <returns>The header, with as many snapshots as are left.</returns>
    /// <exception cref="RepairFailedException">The table lies where none can.</exception>
    public async Task<Header> ReadAsync()
    {
        int count = header.SnapshotCount;
        if (count > Header.MaxSnapshotCount)
        {
            log.Progress($"Discarding {count - Header.MaxSnapshotCount} overhanging snapshots");
            count = Header.MaxSnapshotCount;
        }
        if (header.SnapshotTable.Bytes < 0 || !header.Geometry.IsAligned(header.SnapshotTable.Bytes))
        {
            log.CheckError("ERROR snapshot table offset invalid");
            throw new RepairFailedException("the snapshot table lies where none can: set the header's snapshots_offset and nb_snapshots to 0 to lose all snapshots");
        }
        long tableBytes = 0;
        for (int index = 0; index < count; index++)
        {
            long end = await ReadEntryAsync(index, (tableBytes + 7) & ~7L);
            if (_newBytes > SnapshotTable.MaxBytes || end > int.MaxValue)
            {
                log.Progress($"Discarding {count - index} overhanging snapshots (snapshot table is too big)");
                _entries.RemoveAt(index);
                count = index;
                break;
            }
            tableBytes = end;
        }
        Table = new SnapshotTable([.. _entries.Select((entry, index) => SnapshotEntry.Parse(entry, index))], tableBytes);
        await WriteCountAsync(count);
        ReportIncomplete();
        return header with { SnapshotCount = count };
    }

    /// <summary>The table as it is to be written.</summary>
    public byte[] Encode()
    {
        var table = new MemoryStream();
        foreach (byte[] entry in _entries)
        {
            table.SetLength((table.Length + 7) & ~7L);
            table.Position = table.Length;
            table.Write(Complete(entry));
        }
        return table.ToArray();
    }

    /// <summary>Reads the entry at <paramref name="at"/> of the table, and says where it ends.</summary>
    private async Task<long> ReadEntryAsync(int index, long at)
    {
        long start = header.SnapshotTable.Bytes + at;
        byte[] fields = new byte[SnapshotEntry.FixedBytes];
        await ReadAsync(start, fields);
        int stringBytes = BinaryPrimitives.ReadUInt16BigEndian(fields.AsSpan(IdLengthField)) + BinaryPrimitives.ReadUInt16BigEndian(fields.AsSpan(NameLengthField));
        uint extraBytes = BinaryPrimitives.ReadUInt32BigEndian(fields.AsSpan(ExtraLengthField));
        int keptBytes = (int)Math.Min(extraBytes, SnapshotEntry.MaxExtraDataBytes);
        if (extraBytes > keptBytes)
        {
            log.Progress($"Discarding too much extra metadata in snapshot table entry {index} ({extraBytes} > {keptBytes})");
            BinaryPrimitives.WriteUInt32BigEndian(fields.AsSpan(ExtraLengthField), (uint)keptBytes);
            DamageCount++;
        }
        byte[] entry = new byte[SnapshotEntry.FixedBytes + keptBytes + stringBytes];
        fields.CopyTo(entry, 0);
        await ReadAsync(start + SnapshotEntry.FixedBytes, entry.AsMemory(SnapshotEntry.FixedBytes, keptBytes));
        await ReadAsync(start + SnapshotEntry.FixedBytes + extraBytes, entry.AsMemory(SnapshotEntry.FixedBytes + keptBytes));
        _entries.Add(entry);
        _newBytes = ((_newBytes + 7) & ~7L) + entry.Length;
        return at + SnapshotEntry.FixedBytes + extraBytes + stringBytes;
    }

    private void ReportIncomplete()
    {
        if (header.Version < 3)
            return;
        for (int index = 0; index < _entries.Count; index++)
        {
            if (ExtraBytesOf(_entries[index]) >= RequiredExtraBytes)
                continue;
            log.Progress($"Repairing snapshot table entry {index} is incomplete");
            DamageCount++;
        }
    }

    /// <summary>Snapshots that are given up are given up now: all that follows counts on their number.</summary>
    private async ValueTask WriteCountAsync(int count)
    {
        uint given = header.SnapshotCount == int.MaxValue ? uint.MaxValue : (uint)header.SnapshotCount;
        if (given == (uint)count)
            return;
        byte[] field = new byte[sizeof(uint)];
        HeaderField.WriteUInt32(field, 0, (uint)count);
        await writer.WriteHeaderAsync(HeaderField.SnapshotCount, field);
        log.CorruptionsFixed += given - (uint)count;
    }

    /// <summary>The entry with all the extra data that is known, after QEMU: size of the VM state, size of the disk, no instruction count.</summary>
    private byte[] Complete(byte[] entry)
    {
        int extraBytes = ExtraBytesOf(entry);
        if (extraBytes >= KnownExtraBytes)
            return entry;
        byte[] extra = new byte[KnownExtraBytes];
        HeaderField.WriteUInt64(extra, 0, BinaryPrimitives.ReadUInt32BigEndian(entry.AsSpan(SmallVmStateField)));
        HeaderField.WriteUInt64(extra, 8, (ulong)header.DiskBytes);
        HeaderField.WriteUInt64(extra, 16, ulong.MaxValue);
        // What is there in part says nothing.
        entry.AsSpan(SnapshotEntry.FixedBytes, extraBytes & ~7).CopyTo(extra);
        byte[] complete = [.. entry.AsSpan(0, SnapshotEntry.FixedBytes), .. extra, .. entry.AsSpan(SnapshotEntry.FixedBytes + extraBytes)];
        BinaryPrimitives.WriteUInt32BigEndian(complete.AsSpan(ExtraLengthField), KnownExtraBytes);
        return complete;
    }

    private async ValueTask ReadAsync(long offset, Memory<byte> buffer)
    {
        if (offset < file.LengthBytes)
            await file.ReadAsync(offset, buffer);
        else
            buffer.Span.Clear();
    }

    private static int ExtraBytesOf(byte[] entry) => (int)BinaryPrimitives.ReadUInt32BigEndian(entry.AsSpan(ExtraLengthField));
}
