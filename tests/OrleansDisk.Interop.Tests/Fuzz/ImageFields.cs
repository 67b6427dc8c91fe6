using System.Buffers.Binary;

namespace OrleansDisk.Interop.Tests.Fuzz;

/// <summary>What a field of an image holds, so that a mutation can put in what hurts.</summary>
internal enum FieldKind
{
    Count,
    Offset,
    TableEntry,
    Flags,
    Bytes,
}

/// <summary>A field of an image file.</summary>
internal readonly record struct Field(string Name, long At, int Bytes, FieldKind Kind);

/// <summary>
/// The fields of a sound image, and where its structures lie. Reads the image on its own: it must not be misled by a
/// defect of the engine.
/// </summary>
internal sealed class ImageFields
{
    private const ulong OffsetMask = 0x00ff_ffff_ffff_fe00;
    private const int MaxEntriesPerTable = 64;
    private readonly byte[] _image;
    private readonly HashSet<long> _seen = [];

    public ImageFields(byte[] image)
    {
        _image = image;
        ClusterBytes = 1 << (int)UInt32(20);
        AddHeader();
        AddTable("L1", (long)UInt64(40), (int)UInt32(36), AddL2Table);
        AddTable("refcount table", (long)UInt64(48), (int)UInt32(56) * ClusterBytes / 8, AddRefcountBlock);
        AddSnapshots();
        Structures.AddRange([0, image.Length, image.Length - ClusterBytes, image.Length + ClusterBytes]);
    }

    public int ClusterBytes { get; }

    public List<Field> All { get; } = [];

    /// <summary>Offsets at which something lies that an offset should not lead to.</summary>
    public List<long> Structures { get; } = [];

    private uint UInt32(long at) => BinaryPrimitives.ReadUInt32BigEndian(_image.AsSpan((int)at));

    private ulong UInt64(long at) => BinaryPrimitives.ReadUInt64BigEndian(_image.AsSpan((int)at));

    private void Add(string name, long at, int bytes, FieldKind kind)
    {
        if (at >= 0 && at + bytes <= _image.Length)
            All.Add(new Field(name, at, bytes, kind));
    }

    private void AddHeader()
    {
        (string Name, int At, int Bytes, FieldKind Kind)[] fields =
        [
            ("magic", 0, 4, FieldKind.Bytes), ("version", 4, 4, FieldKind.Count),
            ("backing_file_offset", 8, 8, FieldKind.Offset), ("backing_file_size", 16, 4, FieldKind.Count),
            ("cluster_bits", 20, 4, FieldKind.Count), ("size", 24, 8, FieldKind.Count), ("crypt_method", 32, 4, FieldKind.Count),
            ("l1_size", 36, 4, FieldKind.Count), ("l1_table_offset", 40, 8, FieldKind.Offset),
            ("refcount_table_offset", 48, 8, FieldKind.Offset), ("refcount_table_clusters", 56, 4, FieldKind.Count),
            ("nb_snapshots", 60, 4, FieldKind.Count), ("snapshots_offset", 64, 8, FieldKind.Offset),
            ("incompatible_features", 72, 8, FieldKind.Flags), ("compatible_features", 80, 8, FieldKind.Flags),
            ("autoclear_features", 88, 8, FieldKind.Flags), ("refcount_order", 96, 4, FieldKind.Count),
            ("header_length", 100, 4, FieldKind.Count), ("compression_type", 104, 1, FieldKind.Count),
        ];
        foreach ((string name, int at, int bytes, FieldKind kind) in fields)
            Add(name, at, bytes, kind);
        AddExtensions(UInt32(4) == 2 ? 72 : (int)UInt32(100));
        long name0 = (long)UInt64(8);
        for (int i = 0; name0 != 0 && i < UInt32(16); i++)
            Add("backing file name", name0 + i, 1, FieldKind.Bytes);
    }

    private void AddExtensions(int at)
    {
        while (at + 8 <= ClusterBytes)
        {
            uint type = UInt32(at);
            int length = (int)UInt32(at + 4);
            Add("extension type", at, 4, FieldKind.Bytes);
            Add("extension length", at + 4, 4, FieldKind.Count);
            if (type == 0)
                return;
            for (int i = 0; i < Math.Min(length, 32); i += 8)
                Add("extension data", at + 8 + i, Math.Min(8, length - i), FieldKind.Offset);
            if (type == 0x0537be77)
                AddKeys((long)UInt64(at + 8));
            if (type == 0x23852875)
                AddBitmaps((long)UInt64(at + 24), (int)UInt32(at + 8));
            at += 8 + ((length + 7) & ~7);
        }
    }

    private void AddTable(string name, long table, int count, Action<long> follow)
    {
        if (!_seen.Add(table))
            return;
        Structures.Add(table);
        int empty = 0;
        for (int i = 0; i < count && table + (i * 8) + 8 <= _image.Length; i++)
        {
            ulong entry = UInt64(table + (i * 8));
            if (entry == 0 && ++empty > 4)
                continue;
            Add($"{name} entry {i}", table + (i * 8), 8, FieldKind.TableEntry);
            if ((entry & OffsetMask) != 0)
                follow((long)(entry & OffsetMask));
        }
    }

    private void AddL2Table(long table)
    {
        if (!_seen.Add(table) || table + ClusterBytes > _image.Length)
            return;
        Structures.Add(table);
        int added = 0;
        for (int i = 0; i < ClusterBytes / 8 && added < MaxEntriesPerTable; i++)
        {
            ulong entry = UInt64(table + (i * 8));
            if (entry == 0 && i > 4)
                continue;
            added++;
            Add($"L2 entry {i}", table + (i * 8), 8, FieldKind.TableEntry);
            if (added == 1 && (entry & (1UL << 62)) == 0)
                Structures.Add((long)(entry & OffsetMask));
            if ((entry & (1UL << 62)) != 0)
                AddCompressed(entry);
        }
    }

    private void AddCompressed(ulong entry)
    {
        int offsetBits = 62 - (int.Log2(ClusterBytes) - 8);
        long offset = (long)(entry & ((1UL << offsetBits) - 1));
        for (int i = 0; i < 8; i++)
            Add("compressed data", offset + i, 1, FieldKind.Bytes);
    }

    private void AddRefcountBlock(long block)
    {
        Structures.Add(block);
        for (int i = 0; i < Math.Min(ClusterBytes, 128); i += 2)
            Add($"refcount block byte {i}", block + i, 2, FieldKind.Bytes);
        Add("last refcounts", block + ClusterBytes - 8, 8, FieldKind.Bytes);
    }

    private void AddSnapshots()
    {
        int count = (int)UInt32(60);
        long at = (long)UInt64(64);
        if (count > 0)
            Structures.Add(at);
        for (int i = 0; i < count; i++)
        {
            Add("snapshot l1_table_offset", at, 8, FieldKind.Offset);
            Add("snapshot l1_size", at + 8, 4, FieldKind.Count);
            Add("snapshot id_str_size", at + 12, 2, FieldKind.Count);
            Add("snapshot name_size", at + 14, 2, FieldKind.Count);
            Add("snapshot times", at + 16, 8, FieldKind.Bytes);
            Add("snapshot vm_state_size", at + 32, 4, FieldKind.Count);
            Add("snapshot extra_data_size", at + 36, 4, FieldKind.Count);
            Add("snapshot disk size", at + 48, 8, FieldKind.Count);
            Add("snapshot name", at + 64, 4, FieldKind.Bytes);
            AddTable($"L1 of snapshot {i}", (long)UInt64(at), (int)UInt32(at + 8), AddL2Table);
            long bytes = 40 + UInt32(at + 36) + (UInt32(at + 12) >> 16) + (UInt32(at + 12) & 0xffff);
            at += (bytes + 7) & ~7L;
        }
    }

    /// <summary>The LUKS header. Of rounds only the low half: what an image asks for more, it gets, and that takes long.</summary>
    private void AddKeys(long start)
    {
        Structures.Add(start);
        (string Name, int At, int Bytes, FieldKind Kind)[] fields =
        [
            ("LUKS magic", 0, 4, FieldKind.Bytes), ("LUKS version", 6, 2, FieldKind.Count), ("LUKS cipher", 8, 8, FieldKind.Bytes),
            ("LUKS cipher mode", 40, 8, FieldKind.Bytes), ("LUKS hash", 72, 8, FieldKind.Bytes), ("LUKS payload offset", 104, 4, FieldKind.Count),
            ("LUKS key bytes", 108, 4, FieldKind.Count), ("LUKS digest", 112, 8, FieldKind.Bytes), ("LUKS digest salt", 132, 8, FieldKind.Bytes),
            ("LUKS digest rounds", 166, 2, FieldKind.Count), ("LUKS uuid", 168, 8, FieldKind.Bytes),
        ];
        foreach ((string name, int at, int bytes, FieldKind kind) in fields)
            Add(name, start + at, bytes, kind);
        for (int slot = 0; slot < 8; slot++)
        {
            long at = start + 208 + (slot * 48);
            Add($"key slot mark {slot}", at, 4, slot == 0 ? FieldKind.Flags : FieldKind.Bytes);
            Add($"key slot rounds {slot}", at + 6, 2, FieldKind.Count);
            Add($"key slot salt {slot}", at + 8, 8, FieldKind.Bytes);
            Add($"key slot material {slot}", at + 40, 4, FieldKind.Count);
            Add($"key slot stripes {slot}", at + 44, 4, FieldKind.Count);
            Add($"key material {slot}", start + (512L * UInt32(at + 40)), 8, FieldKind.Bytes);
        }
    }

    private void AddBitmaps(long directory, int count)
    {
        Structures.Add(directory);
        long at = directory;
        for (int i = 0; i < count; i++)
        {
            Add("bitmap_table_offset", at, 8, FieldKind.Offset);
            Add("bitmap_table_size", at + 8, 4, FieldKind.Count);
            Add("bitmap flags", at + 12, 4, FieldKind.Flags);
            Add("bitmap type and granularity", at + 16, 2, FieldKind.Bytes);
            Add("bitmap name_size", at + 18, 2, FieldKind.Count);
            Add("bitmap extra_data_size", at + 20, 4, FieldKind.Count);
            Add("bitmap name", at + 24, 2, FieldKind.Bytes);
            AddTable($"bitmap table {i}", (long)UInt64(at), (int)UInt32(at + 8), static _ => { });
            at += (24 + UInt32(at + 20) + (UInt32(at + 16) & 0xffff) + 7) & ~7L;
        }
    }
}
