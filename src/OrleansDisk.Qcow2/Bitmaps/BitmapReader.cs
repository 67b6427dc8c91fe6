using System.Buffers;
using System.Buffers.Binary;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Qcow2.Bitmaps;

/// <summary>Brings tables and bits of bitmaps into memory when they are asked for.</summary>
internal sealed class BitmapReader(IBlockFile file, ClusterGeometry geometry)
{
    /// <summary>All entries of the directory.</summary>
    /// <exception cref="Qcow2FormatException">It breaks the specification.</exception>
    public async ValueTask<(BitmapsExtension Extension, IReadOnlyList<BitmapEntry> Entries)> ReadDirectoryAsync(HeaderExtension stored, long diskBytes)
    {
        var extension = BitmapsExtension.Parse(stored.Data, geometry);
        if (extension.DirectoryBytes == 0 || extension.Directory.Bytes > file.LengthBytes - extension.DirectoryBytes)
            throw new Qcow2FormatException($"bitmap directory of {extension.DirectoryBytes} bytes at {extension.Directory} does not lie in the file");
        byte[] directory = new byte[extension.DirectoryBytes];
        await file.ReadAsync(extension.Directory.Bytes, directory);
        return (extension, BitmapDirectory.Parse(directory, extension.Count, geometry, diskBytes));
    }

    /// <summary>The table of a bitmap as it is on disk.</summary>
    /// <exception cref="Qcow2FormatException">It breaks the specification.</exception>
    public async ValueTask<BitmapTableEntry[]> ReadTableAsync(BitmapEntry entry)
    {
        int bytes = (int)entry.TableEntryCount * sizeof(ulong);
        if ((long)entry.TableOffset > file.LengthBytes - bytes)
            throw new Qcow2FormatException($"bitmap '{entry.Name}': its table at 0x{entry.TableOffset:x} does not lie in the file");
        byte[] stored = ArrayPool<byte>.Shared.Rent(bytes);
        try
        {
            await file.ReadAsync((long)entry.TableOffset, stored.AsMemory(0, bytes));
            var table = new BitmapTableEntry[entry.TableEntryCount];
            for (int i = 0; i < table.Length; i++)
            {
                table[i] = new BitmapTableEntry(BinaryPrimitives.ReadUInt64BigEndian(stored.AsSpan(i * sizeof(ulong))));
                if (!table[i].IsValid(geometry))
                    throw new Qcow2FormatException($"bitmap '{entry.Name}' has an invalid bitmap table entry: {table[i].Raw:x}");
            }
            return table;
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(stored);
        }
    }

    /// <summary>Reads the table of a bitmap if that has not been done.</summary>
    /// <exception cref="Qcow2FormatException">It breaks the specification.</exception>
    public async ValueTask LoadTableAsync(DirtyBitmap bitmap)
    {
        if (bitmap.StoredTable is not null)
            return;
        BitmapTableEntry[] table = bitmap.Stored.TableOffset == 0 ? [] : await ReadTableAsync(bitmap.Stored);
        bitmap.StoredTable ??= table;
        bitmap.Basis ??= [.. table];
    }

    /// <summary>A page with everything that is set in it. The table was read.</summary>
    public async ValueTask<ulong[]> LoadPageAsync(DirtyBitmap bitmap, int page)
    {
        BitmapTableEntry stored = bitmap.Basis![page];
        if (!stored.HasCluster)
            return stored == BitmapTableEntry.AllOnes ? bitmap.Merge(page, default) : bitmap.PageInMemory(page);
        byte[] bytes = ArrayPool<byte>.Shared.Rent(geometry.ClusterBytes);
        try
        {
            await file.ReadAsync(stored.Cluster.Bytes, bytes.AsMemory(0, geometry.ClusterBytes));
            // Two who load a page at once add the same; but what was stored anew meanwhile must not come back.
            return bitmap.Basis[page] == stored ? bitmap.Merge(page, bytes.AsSpan(0, geometry.ClusterBytes)) : bitmap.Page(page)!;
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(bytes);
        }
    }

    /// <summary>Whether the range that starts at an offset is dirty, and how far that goes, at least a byte.</summary>
    /// <param name="bitmap">A bitmap that is consistent.</param>
    /// <param name="offset">First byte.</param>
    /// <param name="bytes">How far to look, inside the disk.</param>
    public async ValueTask<BitmapExtent> FindExtentAsync(DirtyBitmap bitmap, long offset, long bytes)
    {
        await LoadTableAsync(bitmap);
        int pageBits = geometry.ClusterBits + 3;
        long end = offset + bytes;
        long first = offset >> bitmap.GranularityBits;
        long last = (end - 1) >> bitmap.GranularityBits;
        bool? isDirty = null;
        while (first <= last)
        {
            int page = (int)(first >> pageBits);
            long pageEnd = Math.Min(last + 1, (long)(page + 1) << pageBits);
            int count = (int)(pageEnd - first);
            bool isSet;
            int alike = count;
            if (bitmap.Page(page) is null && !bitmap.Basis![page].HasCluster)
                isSet = bitmap.Basis[page] == BitmapTableEntry.AllOnes;
            else
                alike = DirtyBitmap.CountAlike(await LoadPageAsync(bitmap, page), (int)(first & ((1L << pageBits) - 1)), count, out isSet);
            if (isDirty is not null && isDirty != isSet)
                break;
            isDirty = isSet;
            first += alike;
            if (alike < count)
                break;
        }
        return new BitmapExtent(Math.Min(end, first << bitmap.GranularityBits) - offset, isDirty!.Value);
    }
}
