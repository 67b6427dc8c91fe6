using System.Numerics;
using System.Text;
using OrleansDisk.Qcow2.Crypto;
using OrleansDisk.Qcow2.Format;

namespace OrleansDisk.Qcow2.Operations;

/// <summary>How large the file of a disk gets, in bytes.</summary>
/// <param name="Required">With the data that the source has.</param>
/// <param name="FullyAllocated">When all of the disk has been written.</param>
/// <param name="Bitmaps">What copies of the source's bitmaps would add, or null: one of the two can't have any.</param>
public readonly record struct MeasuredSize(long Required, long FullyAllocated, long? Bitmaps = null);

/// <summary>Tells how large a new image will be, before it is made.</summary>
public static class MeasureOperation
{
    private const int SectorBytes = 512;

    /// <summary>The size of a raw file.</summary>
    /// <param name="virtualBytes">Size of the disk.</param>
    public static MeasuredSize Raw(long virtualBytes)
    {
        if (virtualBytes > long.MaxValue - SectorBytes)
            throw new Qcow2Exception("The image size is too large");
        long bytes = RoundUp(virtualBytes, SectorBytes);
        return new MeasuredSize(bytes, bytes);
    }

    /// <summary>The size of a file that is one encrypted disk.</summary>
    /// <param name="virtualBytes">Size of the disk.</param>
    /// <param name="cipher">Its cipher: key material has the length of its key.</param>
    public static MeasuredSize Luks(long virtualBytes, LuksCipher cipher)
    {
        if (virtualBytes > long.MaxValue - LuksKeys.AreaBytesOf(cipher))
            throw new Qcow2Exception("The requested file size is too large");
        return new MeasuredSize(virtualBytes + LuksKeys.AreaBytesOf(cipher), virtualBytes + LuksKeys.AreaBytesOf(cipher));
    }

    /// <summary>The size of a qcow2 file. Its tables are counted as if all of the disk were written.</summary>
    /// <param name="options">What the image is to be: its disk's size counts without a source.</param>
    /// <param name="source">The chain of what it is to hold, or null: nothing.</param>
    /// <exception cref="Qcow2Exception">There can be no such image.</exception>
    public static async Task<MeasuredSize> Qcow2Async(CreateOptions options, IReadOnlyList<MapLayer>? source)
    {
        (options with { VirtualBytes = 0 }).Validate();
        long virtualBytes = source?[0].VirtualBytes ?? options.VirtualBytes;
        int clusterBytes = (int)options.ClusterBytes;
        int l2EntryBytes = options.ExtendedL2 ? 2 * sizeof(ulong) : sizeof(ulong);
        EnsurePossible(Math.Max(virtualBytes, options.VirtualBytes), clusterBytes, l2EntryBytes);
        virtualBytes = RoundUp(virtualBytes, clusterBytes);
        // What an image with a backing file shares with the source is not known.
        bool holdsAll = options.Preallocation is not (Preallocation.Off or Preallocation.Metadata)
            || (source is not null && options.BackingFile is not null);
        long dataBytes = holdsAll ? virtualBytes : source is null ? 0 : await CountDataBytesAsync(source, clusterBytes);
        long tableBytes = TableBytes(virtualBytes, clusterBytes, BitOperations.Log2((ulong)options.RefcountBits), l2EntryBytes);
        if (options.Encryption is { Method: EncryptionMethod.Luks, Cipher: { } cipher })
            tableBytes += RoundUp(LuksKeys.AreaBytesOf(cipher), clusterBytes);
        return new MeasuredSize(tableBytes + dataBytes, tableBytes + virtualBytes);
    }

    /// <summary>What copies of bitmaps take up in an image, all of their clusters allocated.</summary>
    /// <param name="bitmaps">The bitmaps.</param>
    /// <param name="virtualBytes">Size of the disk that they are of.</param>
    /// <param name="clusterBytes">Cluster size of the new image.</param>
    public static long BitmapBytes(IReadOnlyList<BitmapEntry> bitmaps, long virtualBytes, long clusterBytes)
    {
        long bytes = 0;
        long directoryBytes = 0;
        foreach (BitmapEntry bitmap in bitmaps)
        {
            long bits = DivideUp(virtualBytes, 1L << bitmap.GranularityBits);
            long clusters = DivideUp(DivideUp(bits, 8), clusterBytes);
            bytes += (clusters * clusterBytes) + RoundUp(clusters * sizeof(ulong), clusterBytes);
            directoryBytes += RoundUp(BitmapEntry.FixedBytes + Encoding.UTF8.GetByteCount(bitmap.Name), 8);
        }
        return bytes + RoundUp(directoryBytes, clusterBytes);
    }

    private static void EnsurePossible(long virtualBytes, int clusterBytes, int l2EntryBytes)
    {
        long clusters = (virtualBytes / clusterBytes) + (virtualBytes % clusterBytes == 0 ? 0 : 1);
        if (DivideUp(clusters, clusterBytes / l2EntryBytes) * sizeof(ulong) > ClusterGeometry.MaxL1Bytes)
            throw new Qcow2Exception("The image size is too large (try using a larger cluster size)");
    }

    /// <summary>The clusters that hold data of the source.</summary>
    private static async Task<long> CountDataBytesAsync(IReadOnlyList<MapLayer> source, int clusterBytes)
    {
        long bytes = 0;
        long counted = 0;
        await foreach (MapExtent extent in MapOperation.WalkAsync(source, 0, source[0].VirtualBytes))
        {
            if (extent.IsZero)
                continue;
            long start = Math.Max(counted, extent.Start & -(long)clusterBytes);
            counted = Math.Max(counted, RoundUp(extent.Start + extent.Bytes, clusterBytes));
            bytes += counted - start;
        }
        return bytes;
    }

    /// <summary>Everything but data: header, L1 and L2 tables, refcount table and blocks.</summary>
    private static long TableBytes(long virtualBytes, int clusterBytes, int refcountOrder, int l2EntryBytes)
    {
        long l2Bytes = RoundUp(virtualBytes / clusterBytes * l2EntryBytes, clusterBytes);
        long l1Bytes = RoundUp(l2Bytes / clusterBytes * sizeof(ulong), clusterBytes);
        long bytes = clusterBytes + l2Bytes + l1Bytes;
        return bytes + RefcountBytes((bytes + virtualBytes) / clusterBytes, clusterBytes, refcountOrder);
    }

    /// <summary>
    /// Refcount table and blocks for so many clusters and for themselves. The table has half as much room again, as one that
    /// has grown.
    /// </summary>
    private static long RefcountBytes(long clusterCount, int clusterBytes, int refcountOrder)
    {
        (long blocks, long tables) = CountRefcounts(clusterCount, clusterBytes, refcountOrder);
        (blocks, tables) = CountRefcounts(clusterCount + DivideUp(tables, 2), clusterBytes, refcountOrder);
        return (blocks + tables) * clusterBytes;
    }

    private static (long Blocks, long Tables) CountRefcounts(long clusterCount, int clusterBytes, int refcountOrder)
    {
        long refcountsPerBlock = (long)clusterBytes * 8 >> refcountOrder;
        long blocks = 0;
        long tables = 0;
        for (long total = -1; total != clusterCount + blocks + tables;)
        {
            total = clusterCount + blocks + tables;
            blocks = DivideUp(total, refcountsPerBlock);
            tables = DivideUp(blocks, clusterBytes / sizeof(ulong));
        }
        return (blocks, tables);
    }

    private static long DivideUp(long value, long unit) => (value + unit - 1) / unit;

    private static long RoundUp(long value, long unit) => DivideUp(value, unit) * unit;
}
