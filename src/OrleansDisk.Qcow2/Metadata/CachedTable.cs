using System.Buffers;
using System.Buffers.Binary;
using OrleansDisk.Qcow2.Format;

namespace OrleansDisk.Qcow2.Metadata;

/// <summary>A table of one cluster in memory, as it lies on disk: an L2 table or a refcount block.</summary>
internal sealed class CachedTable(HostOffset offset, byte[] bytes)
{
    private const int SectorBytes = 512;
    private int _dirtyFrom = int.MaxValue;
    private int _dirtyTo;

    public HostOffset Offset { get; } = offset;

    public ReadOnlySpan<byte> Bytes => bytes;

    public bool IsDirty => _dirtyTo > 0;

    /// <summary>
    /// No pointer on disk leads here yet, so the table may be written before what it points to is safe
    /// (docs/consistency.md, W2).
    /// </summary>
    public bool IsUnreachable { get; set; }

    /// <summary>While above 0 the table stays in the cache.</summary>
    public int PinCount { get; set; }

    public LinkedListNode<CachedTable>? Recency { get; set; }

    public ulong ReadEntry(int index) => BinaryPrimitives.ReadUInt64BigEndian(bytes.AsSpan(index * sizeof(ulong)));

    public void WriteEntry(int index, ulong value)
    {
        BinaryPrimitives.WriteUInt64BigEndian(bytes.AsSpan(index * sizeof(ulong)), value);
        MarkDirty(index * sizeof(ulong), sizeof(ulong));
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
