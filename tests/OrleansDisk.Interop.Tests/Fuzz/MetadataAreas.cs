using System.Buffers.Binary;

namespace OrleansDisk.Interop.Tests.Fuzz;

/// <summary>Where the metadata of an image lies, as the file says now; read without the engine.</summary>
internal sealed class MetadataAreas
{
    private const ulong L1OffsetMask = 0x00ff_ffff_ffff_fe00;
    private const ulong RefcountTableOffsetMask = 0xffff_ffff_ffff_fe00;
    private const int MaxTableBytes = 1 << 20;
    private readonly MutantFile _file;
    private readonly int _clusterBytes;

    public MetadataAreas(MutantFile file)
    {
        _file = file;
        byte[] header = file.Peek(0, 112);
        _clusterBytes = 1 << (int)BinaryPrimitives.ReadUInt32BigEndian(header.AsSpan(20));
        Add("header", 0, Math.Min(_clusterBytes, 4096));
        long refcountTable = BinaryPrimitives.ReadInt64BigEndian(header.AsSpan(48));
        long refcountTableBytes = (long)BinaryPrimitives.ReadUInt32BigEndian(header.AsSpan(56)) * _clusterBytes;
        AddTable("refcount table", refcountTable, refcountTableBytes, RefcountTableOffsetMask, "refcount block");
        long l1Bytes = (long)BinaryPrimitives.ReadUInt32BigEndian(header.AsSpan(36)) * sizeof(ulong);
        AddTable("L1 table", BinaryPrimitives.ReadInt64BigEndian(header.AsSpan(40)), l1Bytes, L1OffsetMask, "L2 table");
    }

    public List<(string Name, long Start, int Bytes)> All { get; } = [];

    /// <summary>No run of a byte that only guest data consists of stands in any of them.</summary>
    public void MustNotHold(byte marker, int run)
    {
        byte[] pattern = new byte[run];
        pattern.AsSpan().Fill(marker);
        foreach ((string name, long start, int bytes) in All)
            Assert.True(_file.Peek(start, bytes).AsSpan().IndexOf(pattern) < 0, $"guest data in the {name} at 0x{start:x}");
    }

    private void Add(string name, long start, int bytes) => All.Add((name, start, bytes));

    private void AddTable(string name, long start, long bytes, ulong mask, string whatEntriesLeadTo)
    {
        int count = (int)Math.Min(Math.Min(bytes, MaxTableBytes), Math.Max(0, _file.LengthBytes - start));
        Add(name, start, count);
        byte[] table = _file.Peek(start, count);
        for (int at = 0; at + sizeof(ulong) <= count; at += sizeof(ulong))
        {
            long entry = (long)(BinaryPrimitives.ReadUInt64BigEndian(table.AsSpan(at)) & mask);
            if (entry > 0 && entry % _clusterBytes == 0 && entry < _file.LengthBytes)
                Add(whatEntriesLeadTo, entry, _clusterBytes);
        }
    }
}
