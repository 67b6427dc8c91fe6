using System.Buffers.Binary;
using System.Text;

namespace OrleansDisk.Qcow2.Format;

/// <summary>An entry of the snapshot table (qcow2 specification, "Snapshots").</summary>
public sealed record SnapshotEntry
{
    public const int FixedBytes = 40;
    public const int MaxExtraDataBytes = 1024;

    /// <summary>What helps against extra data over the limit.</summary>
    private const string Remedy = "You can force-remove this extra metadata with qemu-img check -r all";

    /// <summary>Extra data whose meaning is known: VM state size, disk size, instruction count.</summary>
    private const int KnownExtraDataBytes = 24;

    public required HostOffset L1Table { get; init; }

    public required int L1EntryCount { get; init; }

    public string Id => Encoding.UTF8.GetString(StoredId.Span);

    public string Name => Encoding.UTF8.GetString(StoredName.Span);

    /// <summary>The id's bytes, of any encoding, at most 65,535.</summary>
    public required ReadOnlyMemory<byte> StoredId { get; init; }

    /// <summary>The name's bytes, of any encoding, at most 65,535.</summary>
    public required ReadOnlyMemory<byte> StoredName { get; init; }

    /// <summary>When the snapshot was taken, to a tenth of a microsecond.</summary>
    public DateTimeOffset Date => DateTimeOffset.FromUnixTimeSeconds(DateSeconds).AddTicks(DateNanoseconds / 100);

    /// <summary>When the snapshot was taken, in seconds since 1970.</summary>
    public required uint DateSeconds { get; init; }

    /// <summary>Nanoseconds beyond <see cref="DateSeconds"/>.</summary>
    public required uint DateNanoseconds { get; init; }

    /// <summary>Run time of the guest at that moment, in nanoseconds.</summary>
    public required ulong VmClockNanoseconds { get; init; }

    /// <summary>Bytes of saved VM state; 0 when there is none.</summary>
    public required ulong VmStateBytes { get; init; }

    /// <summary>Size of the disk when the snapshot was taken, or null when the entry does not say.</summary>
    public long? VirtualBytes { get; init; }

    /// <summary>Instruction count of record and replay, or null.</summary>
    public ulong? InstructionCount { get; init; }

    /// <summary>Extra data behind what is known, kept as it is.</summary>
    public ReadOnlyMemory<byte> UnknownExtraData { get; init; }

    /// <summary>Bytes that this entry took where it was read, without padding to the next one.</summary>
    public int StoredBytes { get; init; }

    /// <summary>Bytes that <see cref="WriteTo"/> writes.</summary>
    public int WrittenBytes =>
        FixedBytes + KnownExtraDataBytes + UnknownExtraData.Length + StoredId.Length + StoredName.Length;

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
            throw new Qcow2FormatException($"Too much extra metadata in snapshot table entry {index}\n{Remedy}");
        int storedBytes = FixedBytes + (int)extraBytes + idBytes + nameBytes;
        if (table.Length < storedBytes)
            throw new Qcow2FormatException($"snapshot table entry {index} is incomplete");
        ReadOnlySpan<byte> extra = table.Slice(FixedBytes, (int)extraBytes);
        uint smallVmState = BinaryPrimitives.ReadUInt32BigEndian(table[32..]);
        return new SnapshotEntry
        {
            L1Table = new HostOffset((long)BinaryPrimitives.ReadUInt64BigEndian(table)),
            L1EntryCount = (int)Math.Min(BinaryPrimitives.ReadUInt32BigEndian(table[8..]), int.MaxValue),
            StoredId = table.Slice(FixedBytes + (int)extraBytes, idBytes).ToArray(),
            StoredName = table.Slice(FixedBytes + (int)extraBytes + idBytes, nameBytes).ToArray(),
            DateSeconds = BinaryPrimitives.ReadUInt32BigEndian(table[16..]),
            DateNanoseconds = BinaryPrimitives.ReadUInt32BigEndian(table[20..]),
            VmClockNanoseconds = BinaryPrimitives.ReadUInt64BigEndian(table[24..]),
            VmStateBytes = extra.Length >= 8 ? BinaryPrimitives.ReadUInt64BigEndian(extra) : smallVmState,
            VirtualBytes = extra.Length >= 16 ? (long)BinaryPrimitives.ReadUInt64BigEndian(extra[8..]) : null,
            InstructionCount = extra.Length >= 24 ? BinaryPrimitives.ReadUInt64BigEndian(extra[16..]) : null,
            UnknownExtraData = extra.Length > KnownExtraDataBytes ? extra[KnownExtraDataBytes..].ToArray() : default,
            StoredBytes = storedBytes,
        };
    }

    /// <summary>
    /// Writes the entry, with all the extra data that is known. An entry that does not say the size of its disk says the
    /// present one from now on.
    /// </summary>
    /// <param name="table">The rest of the table, zeros.</param>
    /// <param name="virtualBytes">Size of the disk now.</param>
    public void WriteTo(Span<byte> table, long virtualBytes)
    {
        BinaryPrimitives.WriteUInt64BigEndian(table, (ulong)L1Table.Bytes);
        BinaryPrimitives.WriteUInt32BigEndian(table[8..], (uint)L1EntryCount);
        BinaryPrimitives.WriteUInt16BigEndian(table[12..], (ushort)StoredId.Length);
        BinaryPrimitives.WriteUInt16BigEndian(table[14..], (ushort)StoredName.Length);
        BinaryPrimitives.WriteUInt32BigEndian(table[16..], DateSeconds);
        BinaryPrimitives.WriteUInt32BigEndian(table[20..], DateNanoseconds);
        BinaryPrimitives.WriteUInt64BigEndian(table[24..], VmClockNanoseconds);
        // Who knows only this field sees no VM state rather than a part of it.
        BinaryPrimitives.WriteUInt32BigEndian(table[32..], VmStateBytes <= uint.MaxValue ? (uint)VmStateBytes : 0);
        BinaryPrimitives.WriteUInt32BigEndian(table[36..], (uint)(KnownExtraDataBytes + UnknownExtraData.Length));
        Span<byte> extra = table[FixedBytes..];
        BinaryPrimitives.WriteUInt64BigEndian(extra, VmStateBytes);
        BinaryPrimitives.WriteUInt64BigEndian(extra[8..], (ulong)(VirtualBytes ?? virtualBytes));
        BinaryPrimitives.WriteUInt64BigEndian(extra[16..], InstructionCount ?? ulong.MaxValue);
        UnknownExtraData.Span.CopyTo(extra[KnownExtraDataBytes..]);
        Span<byte> strings = extra[(KnownExtraDataBytes + UnknownExtraData.Length)..];
        StoredId.Span.CopyTo(strings);
        StoredName.Span.CopyTo(strings[StoredId.Length..]);
    }
}
