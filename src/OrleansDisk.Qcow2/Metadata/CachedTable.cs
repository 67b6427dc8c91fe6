using System.Buffers;
using System.Buffers.Binary;
using System.Runtime.InteropServices;
using OrleansDisk.Qcow2.Format;

namespace OrleansDisk.Qcow2.Metadata;

/// <summary>
/// A table in memory, as it lies on disk: an L2 slice or a refcount block. Turns of the image change it;
/// the entries of an L2 slice may be read by any thread, and each is read and written as a whole.
/// </summary>
internal sealed class CachedTable(HostOffset offset, byte[] bytes)
{
    private const int SectorBytes = 512;
    private int _dirtyFrom = int.MaxValue;
    private int _dirtyTo;

    /// <summary>A bit for each entry that may be written through without looking at where it leads; made when needed.</summary>
    private ulong[]? _writable;
    private long _writableGeneration;
    private bool _isUsed;

    public HostOffset Offset { get; } = offset;

    public ReadOnlySpan<byte> Bytes => bytes;

    public bool IsDirty => _dirtyTo > 0;

    /// <summary>While above 0 the table stays in the cache.</summary>
    public int PinCount { get; set; }

    public LinkedListNode<CachedTable>? Recency { get; set; }

    /// <summary>The round of the cache in which a turn used the table last.</summary>
    public long UsedInRound { get; set; }

    /// <summary>The slice as which the table is published (<see cref="PublishedSlices"/>), or null.</summary>
    public long? Slice { get; set; }

    /// <summary>
    /// An entry of an L2 slice. May be called by any thread; one of 16 bytes that changes at this moment may be found
    /// <see cref="ClusterKind.Invalid"/>, by other threads only.
    /// </summary>
    public L2Entry ReadL2Entry(int index, ClusterGeometry geometry) =>
        geometry.HasSubclusters ? ReadExtended(index) : new L2Entry(ReadWord(index));

    /// <summary>Changes an entry of an L2 slice, which is then not known to be <see cref="IsWritable">writable</see>.</summary>
    public void WriteL2Entry(int index, L2Entry entry, ClusterGeometry geometry)
    {
        if (_writable is not null)
            Volatile.Write(ref _writable[index >> 6], _writable[index >> 6] & ~(1UL << index));
        if (geometry.HasSubclusters)
            WriteExtended(index, entry);
        else
            WriteWord(index, entry.Raw);
        MarkDirty(index * geometry.L2EntryBytes, geometry.L2EntryBytes);
    }

    /// <summary>
    /// Reads the bitmap between two looks at the other half. If that stayed the same, the bitmap is one that belonged to
    /// it: a host offset does not come back while someone who saw it is inside (docs/consistency.md, W5).
    /// </summary>
    private L2Entry ReadExtended(int index)
    {
        ulong raw = ReadWord(2 * index);
        var bitmap = new SubclusterBitmap(ReadWord((2 * index) + 1));
        return new L2Entry(raw, ReadWord(2 * index) == raw ? bitmap : SubclusterBitmap.Changing);
    }

    /// <summary>While the first half changes, the bitmap is one that nobody acts on.</summary>
    private void WriteExtended(int index, L2Entry entry)
    {
        if (ReadWord(2 * index) != entry.Raw)
        {
            WriteWord((2 * index) + 1, SubclusterBitmap.Changing.Raw);
            WriteWord(2 * index, entry.Raw);
        }
        WriteWord((2 * index) + 1, entry.Bitmap.Raw);
    }

    private ulong ReadWord(int index) => BinaryPrimitives.ReverseEndianness(Volatile.Read(ref Words[index]));

    private void WriteWord(int index, ulong value) => Volatile.Write(ref Words[index], BinaryPrimitives.ReverseEndianness(value));

    /// <summary>
    /// Whether guest data may be written where an entry leads, by what was found out in this generation of the
    /// <see cref="MetadataMap"/>. Look here first and at the entry then: whatever the image writes into an entry may be
    /// written through. May be called by any thread.
    /// </summary>
    public bool IsWritable(int index, long generation) =>
        Volatile.Read(ref _writableGeneration) == generation && Volatile.Read(ref _writable) is { } words
            && (Volatile.Read(ref words[index >> 6]) >> index & 1) != 0;

    /// <summary>Notes of entries that guest data may be written where they lead.</summary>
    /// <param name="index">One of the 64 entries.</param>
    /// <param name="mask">Which of the 64 entries from a multiple of 64 on, the lowest bit for the first.</param>
    /// <param name="generation">The generation of the <see cref="MetadataMap"/>.</param>
    public void SetWritable(int index, ulong mask, long generation)
    {
        ulong[] words = _writable ?? new ulong[(bytes.Length / sizeof(ulong) + 63) / 64];
        Volatile.Write(ref _writable, words);
        if (_writableGeneration != generation)
        {
            for (int i = 0; i < words.Length; i++)
                Volatile.Write(ref words[i], 0);
            Volatile.Write(ref _writableGeneration, generation);
        }
        Volatile.Write(ref words[index >> 6], words[index >> 6] | mask);
    }

    /// <summary>Notes that the table is in use, for <see cref="TakeUsed"/>. May be called by any thread.</summary>
    public void NoteUsed()
    {
        // A store that changes nothing would take the cache line away from other threads all the same.
        if (!Volatile.Read(ref _isUsed))
            Volatile.Write(ref _isUsed, true);
    }

    /// <summary>Whether <see cref="NoteUsed"/> was called since the last call of this.</summary>
    public bool TakeUsed()
    {
        bool isUsed = Volatile.Read(ref _isUsed);
        Volatile.Write(ref _isUsed, false);
        return isUsed;
    }

    public void SetRefcount(int order, int index, ulong value)
    {
        RefcountBlock.Set(bytes, order, index, value);
        MarkDirty((int)(((long)index << order) >> 3), Math.Max(1, 1 << order >> 3));
    }

    public void MarkAllDirty() => MarkDirty(0, bytes.Length);

    /// <summary>
    /// Takes the changed sectors out as a copy, so that the table can go on changing while they are written. The table
    /// is pinned until they are: who loaded it again from the file before that would see old bytes.
    /// </summary>
    public DirtyPart TakeDirty()
    {
        int from = _dirtyFrom & ~(SectorBytes - 1);
        int to = (_dirtyTo + SectorBytes - 1) & ~(SectorBytes - 1);
        byte[] copy = ArrayPool<byte>.Shared.Rent(to - from);
        bytes.AsSpan(from, to - from).CopyTo(copy);
        _dirtyFrom = int.MaxValue;
        _dirtyTo = 0;
        PinCount++;
        return new DirtyPart(Offset + from, copy, to - from) { Table = this };
    }

    /// <summary>The table as big-endian words; an array's elements begin at a multiple of 8.</summary>
    private Span<ulong> Words => MemoryMarshal.Cast<byte, ulong>(bytes.AsSpan());

    private void MarkDirty(int from, int count)
    {
        _dirtyFrom = Math.Min(_dirtyFrom, from);
        _dirtyTo = Math.Max(_dirtyTo, from + count);
    }
}

/// <summary>Bytes on their way to the file, in a pooled copy.</summary>
internal readonly record struct DirtyPart(HostOffset Offset, byte[] Pooled, int ByteCount)
{
    /// <summary>The cached table that they belong to, if they come from one.</summary>
    public CachedTable? Table { get; init; }

    public ReadOnlyMemory<byte> Bytes => Pooled.AsMemory(0, ByteCount);

    /// <summary>Ends the part once it is written: its table may leave the cache again.</summary>
    public void Release()
    {
        if (Table is not null)
            Table.PinCount--;
        ArrayPool<byte>.Shared.Return(Pooled);
    }
}
