using System.Buffers.Binary;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Simulation.Model;

namespace OrleansDisk.Simulation.Crash;

/// <summary>
/// The sectors of an image file that decide what its tables say: header, L1 and L2 tables, refcounts, snapshots, bitmaps,
/// compressed clusters. Two states that agree in them, and in the file's length, agree in every judgement but that on data.
/// </summary>
internal sealed class MetadataExtent
{
    private readonly IBlockFile _file;
    private readonly Header _header;
    private readonly HashSet<long> _tables = [];

    private MetadataExtent(IBlockFile file, Header header) => (_file, _header) = (file, header);

    private List<(long Offset, long Bytes)> Ranges { get; } = [];

    public static async Task<IReadOnlyList<(long Offset, long Bytes)>> FindAsync(IBlockFile file, Header header)
    {
        var extent = new MetadataExtent(file, header);
        await extent.WalkAsync();
        return extent.Ranges;
    }

    private async Task WalkAsync()
    {
        Add(0, _header.Geometry.ClusterBytes);
        if (_header.Encryption == EncryptionMethod.Luks && EncryptionHeader.Of(_header) is var keys)
            Add(keys.Start.Bytes, keys.Bytes);
        await AddL1Async(_header.L1Table.Bytes, _header.L1EntryCount);
        long refcountTableBytes = (long)_header.RefcountTableClusters << _header.Geometry.ClusterBits;
        Add(_header.RefcountTable.Bytes, refcountTableBytes);
        foreach (ulong raw in await ReadTableAsync(_header.RefcountTable.Bytes, refcountTableBytes))
        {
            if (new RefcountTableEntry(raw) is { IsAllocated: true } entry)
                Add(entry.Block.Bytes, _header.Geometry.ClusterBytes);
        }
        long snapshotBytes = 0;
        foreach (SnapshotEntry snapshot in await DirectoryReader.ReadSnapshotsAsync(_file, _header))
        {
            snapshotBytes += (snapshot.StoredBytes + 7) & ~7;
            await AddL1Async(snapshot.L1Table.Bytes, snapshot.L1EntryCount);
        }
        Add(_header.SnapshotTable.Bytes, snapshotBytes);
        await AddBitmapsAsync();
    }

    private async Task AddBitmapsAsync()
    {
        if (_header.Find(HeaderExtensionType.Bitmaps) is not { } stored || !_header.Autoclear.HasFlag(AutoclearFeatures.Bitmaps))
            return;
        var extension = BitmapsExtension.Parse(stored.Data, _header.Geometry);
        Add(extension.Directory.Bytes, extension.DirectoryBytes);
        foreach (BitmapEntry bitmap in await DirectoryReader.ReadBitmapsAsync(_file, _header))
        {
            long bytes = bitmap.TableEntryCount * (long)sizeof(ulong);
            Add((long)bitmap.TableOffset, bytes);
            foreach (ulong raw in await ReadTableAsync((long)bitmap.TableOffset, bytes))
            {
                if (raw > 1) // neither all zeros nor all ones
                    Add((long)raw, _header.Geometry.ClusterBytes);
            }
        }
    }

    private async Task AddL1Async(long offset, int entryCount)
    {
        long bytes = entryCount * (long)sizeof(ulong);
        Add(offset, bytes);
        foreach (ulong raw in await ReadTableAsync(offset, bytes))
        {
            if (new L1Entry(raw) is not { IsAllocated: true } entry || !_tables.Add(entry.L2Table.Bytes))
                continue;
            Add(entry.L2Table.Bytes, _header.Geometry.ClusterBytes);
            byte[] table = new byte[_header.Geometry.ClusterBytes];
            await _file.ReadAsync(entry.L2Table.Bytes, table);
            for (int i = 0; i < _header.Geometry.L2EntryCount; i++)
            {
                var l2Entry = L2Entry.Read(table, i, _header.Geometry);
                if (l2Entry.Kind(_header.Geometry) == ClusterKind.Compressed)
                    Add(l2Entry.Compressed(_header.Geometry).Start.Bytes, l2Entry.Compressed(_header.Geometry).Bytes);
            }
        }
    }

    private void Add(long offset, long bytes)
    {
        if (bytes > 0)
            Ranges.Add((offset / SectorContent.Bytes * SectorContent.Bytes, bytes + (offset % SectorContent.Bytes)));
    }

    private async Task<ulong[]> ReadTableAsync(long offset, long bytes)
    {
        byte[] stored = new byte[bytes];
        await _file.ReadAsync(offset, stored);
        ulong[] entries = new ulong[bytes / sizeof(ulong)];
        for (int i = 0; i < entries.Length; i++)
            entries[i] = BinaryPrimitives.ReadUInt64BigEndian(stored.AsSpan(i * sizeof(ulong)));
        return entries;
    }
}
