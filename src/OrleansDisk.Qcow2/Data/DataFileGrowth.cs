using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Qcow2.Metadata;

namespace OrleansDisk.Qcow2.Data;

/// <summary>Lets an external data file grow with its disk.</summary>
internal sealed class DataFileGrowth(ImageMetadata metadata)
{
    private const int ChunkBytes = 256 << 10;

    /// <summary>
    /// Makes the file as long as the disk will be. In a raw one what is new reads as zeros, whatever the file had there,
    /// and entries lead to it. The caller has the gate alone.
    /// </summary>
    /// <param name="oldBytes">The disk's size so far.</param>
    /// <param name="newBytes">The size that it will have.</param>
    /// <param name="preallocation">Off in a file that is not raw: no entry leads to what is new.</param>
    /// <exception cref="BlockFileException">The file can't grow.</exception>
    public async ValueTask GrowAsync(long oldBytes, long newBytes, Preallocation preallocation)
    {
        IBlockFile file = metadata.DataFile;
        bool links = metadata.IsDataFileRaw || preallocation != Preallocation.Off;
        if (links)
            await ClearAsync(oldBytes, Math.Min(file.LengthBytes, newBytes));
        await FilePreallocation.RunAsync(file, oldBytes, newBytes - oldBytes, preallocation);
        metadata.Order.NoteDataWritten();
        if (links)
            await LinkAsync(oldBytes, newBytes);
    }

    private async ValueTask ClearAsync(long start, long end)
    {
        if (start >= end || await metadata.DataFile.PunchHoleAsync(start, end - start))
            return;
        byte[] zeros = new byte[ChunkBytes];
        for (long at = start; at < end; at += ChunkBytes)
            await metadata.DataFile.WriteAsync(at, zeros.AsMemory(0, (int)Math.Min(ChunkBytes, end - at)));
    }

    private async ValueTask LinkAsync(long oldBytes, long newBytes)
    {
        ClusterGeometry geometry = metadata.Geometry;
        var end = new GuestCluster(geometry.ClusterCount(newBytes));
        for (var cluster = new GuestCluster(geometry.ClusterCount(oldBytes)); cluster.Index < end.Index;)
        {
            using TablePin pin = await metadata.L2Tables.PinForChangeAsync(cluster);
            do
            {
                var host = new HostOffset(geometry.OffsetOf(cluster).Bytes);
                metadata.L2Tables.Link(pin.Table, cluster, host, geometry.HasSubclusters ? SubclusterBitmap.AllData : default);
                cluster += 1;
            }
            while (cluster.Index < end.Index && geometry.L2SliceIndex(cluster) != 0);
        }
    }
}
