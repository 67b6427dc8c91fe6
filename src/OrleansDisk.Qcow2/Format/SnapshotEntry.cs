using System.Buffers.Binary;
using System.Text;

namespace OrleansDisk.Qcow2.Format;

/// <summary>An entry of the snapshot table (qcow2 specification, "Snapshots").</summary>
public sealed record SnapshotEntry
{
    public const int FixedBytes = 40;
    public const int MaxExtraDataBytes = 1024;

    public required HostOffset L1Table { get; init; }

    public required int L1EntryCount { get; init; }

    public required string Id { get; init; }

    public required string Name { get; init; }

    /// <summary>When the snapshot was taken, to the nanosecond.</summary>
    public required DateTimeOffset Date { get; init; }

    /// <summary>Run time of the guest at that moment, in nanoseconds.</summary>
    public required ulong VmClockNanoseconds { get; init; }

    /// <summary>Bytes of saved VM state; 0 when there is none.</summary>
    public required ulong VmStateBytes { get; init; }

    /// <summary>Size of the disk when the snapshot was taken, or null when the entry does not say.</summary>
    public long? VirtualBytes { get; init; }

    /// <summary>Instruction count of record and replay, or null.</summary>
    public ulong? InstructionCount { get; init; }

    /// <summary>Bytes that this entry takes, without padding to the next one.</summary>
    public required int StoredBytes { get; init; }

    /// <summary>Reads the entry that starts at <paramref name="table"/>.</summary>
    /// <param name="table">The rest of the table.</param>
    /// <param name="index">The entry's number, for messages.</param>
    /// <exception cref="Qcow2FormatException">It ends too early or has more extra data than is allowed.</exception>
    public static SnapshotEntry Parse(ReadOnlySpan<byte> table, int index)
    {
        if (table.Length < FixedBytes)
            throw new Qcow2FormatException($"snapshot table entry {index} is incomplete");
        int idBytes = BinaryPrimitives.ReadUInt16BigEndian(table[12..]);
        int nameBytes = BinaryPrimitives.ReadUInt16BigEndian(table[14..]);
        uint extraBytes = BinaryPrimitives.ReadUInt32BigEndian(table[36..]);
        if (extraBytes > MaxExtraDataBytes)
            throw new Qcow2FormatException($"Too much extra metadata in snapshot table entry {index}");
        int storedBytes = FixedBytes + (int)extraBytes + idBytes + nameBytes;
        if (table.Length < storedBytes)
            throw new Qcow2FormatException($"snapshot table entry {index} is incomplete");
        ReadOnlySpan<byte> extra = table.Slice(FixedBytes, (int)extraBytes);
        uint seconds = BinaryPrimitives.ReadUInt32BigEndian(table[16..]);
        uint nanoseconds = BinaryPrimitives.ReadUInt32BigEndian(table[20..]);
        uint smallVmState = BinaryPrimitives.ReadUInt32BigEndian(table[32..]);
        return new SnapshotEntry
        {
            L1Table = new HostOffset((long)BinaryPrimitives.ReadUInt64BigEndian(table)),
            L1EntryCount = (int)Math.Min(BinaryPrimitives.ReadUInt32BigEndian(table[8..]), int.MaxValue),
            Id = Encoding.UTF8.GetString(table.Slice(FixedBytes + (int)extraBytes, idBytes)),
            Name = Encoding.UTF8.GetString(table.Slice(FixedBytes + (int)extraBytes + idBytes, nameBytes)),
            Date = DateTimeOffset.FromUnixTimeSeconds(seconds).AddTicks(nanoseconds / 100),
            VmClockNanoseconds = BinaryPrimitives.ReadUInt64BigEndian(table[24..]),
            VmStateBytes = extra.Length >= 8 ? BinaryPrimitives.ReadUInt64BigEndian(extra) : smallVmState,
            VirtualBytes = extra.Length >= 16 ? (long)BinaryPrimitives.ReadUInt64BigEndian(extra[8..]) : null,
            InstructionCount = extra.Length >= 24 ? BinaryPrimitives.ReadUInt64BigEndian(extra[16..]) : null,
            StoredBytes = storedBytes,
        };
    }
}
