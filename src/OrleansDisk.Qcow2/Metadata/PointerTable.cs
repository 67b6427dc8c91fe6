using System.Buffers;
using System.Buffers.Binary;
using OrleansDisk.Qcow2.Format;

namespace OrleansDisk.Qcow2.Metadata;

/// <summary>
/// A table of 8-byte entries of which there is one and which is all in memory: the active L1 table or the refcount
/// table. It knows which of its sectors differ from the disk.
/// </summary>
internal sealed class PointerTable
{
    private const int EntriesPerSector = 64;
    private readonly SortedSet<int> _dirtySectors = [];
    private ulong[] _entries;

    /// <summary>Takes over a table as it lies on disk.</summary>
    public PointerTable(HostOffset offset, ReadOnlySpan<byte> stored)
    {
        Offset = offset;
        _entries = Parse(stored);
    }

    public HostOffset Offset { get; private set; }

    public ReadOnlySpan<ulong> Entries => _entries;

    public int Count => _entries.Length;

    public bool IsDirty => _dirtySectors.Count > 0;

    /// <summary>Whether the header on disk still points to an earlier place of the table.</summary>
    public bool HasMoved { get; private set; }

    public ulong this[int index]
    {
        get => _entries[index];
        set
        {
            _entries[index] = value;
            _dirtySectors.Add(index / EntriesPerSector);
        }
    }

    /// <summary>Puts the table elsewhere with at least as many entries; all of it is then to be written.</summary>
    public void Move(HostOffset offset, int count)
    {
        Invariant.Assert(count >= _entries.Length, "a table that moves keeps its entries");
        Array.Resize(ref _entries, count);
        Offset = offset;
        HasMoved = true;
        for (int sector = 0; sector * EntriesPerSector < count; sector++)
            _dirtySectors.Add(sector);
    }

    /// <summary>Becomes another table, which is on disk, the header leading to it.</summary>
    public void Replace(HostOffset offset, ulong[] entries)
    {
        Invariant.Assert(!IsDirty, "a table is replaced when it is written back");
        (Offset, _entries) = (offset, entries);
    }

    /// <summary>A table of entries as it lies on disk.</summary>
    public static byte[] Store(ReadOnlySpan<ulong> entries)
    {
        byte[] stored = new byte[entries.Length * sizeof(ulong)];
        for (int index = 0; index < entries.Length; index++)
            BinaryPrimitives.WriteUInt64BigEndian(stored.AsSpan(index * sizeof(ulong)), entries[index]);
        return stored;
    }

    /// <summary>The entries of a table as it lies on disk.</summary>
    public static ulong[] Parse(ReadOnlySpan<byte> stored)
    {
        ulong[] entries = new ulong[stored.Length / sizeof(ulong)];
        for (int index = 0; index < entries.Length; index++)
            entries[index] = BinaryPrimitives.ReadUInt64BigEndian(stored[(index * sizeof(ulong))..]);
        return entries;
    }

    /// <summary>Takes the changed sectors out as copies, neighbours together, and whether the header must follow.</summary>
    public bool TakeDirty(List<DirtyPart> into)
    {
        int first = -1;
        int last = -1;
        foreach (int sector in _dirtySectors)
        {
            if (sector != last + 1 || first < 0)
            {
                AddPart(first, last, into);
                first = sector;
            }
            last = sector;
        }
        AddPart(first, last, into);
        _dirtySectors.Clear();
        bool moved = HasMoved;
        HasMoved = false;
        return moved;
    }

    private void AddPart(int firstSector, int lastSector, List<DirtyPart> into)
    {
        if (firstSector < 0)
            return;
        int first = firstSector * EntriesPerSector;
        int count = (lastSector - firstSector + 1) * EntriesPerSector;
        // The table fills whole clusters, so the padding of its last sector belongs to it.
        byte[] copy = ArrayPool<byte>.Shared.Rent(count * sizeof(ulong));
        copy.AsSpan(0, count * sizeof(ulong)).Clear();
        for (int i = 0; i < Math.Min(count, _entries.Length - first); i++)
            BinaryPrimitives.WriteUInt64BigEndian(copy.AsSpan(i * sizeof(ulong)), _entries[first + i]);
        into.Add(new DirtyPart(Offset + ((long)first * sizeof(ulong)), copy, count * sizeof(ulong)));
    }
}
