using OrleansDisk.Qcow2;

namespace OrleansDisk.Cli.Opening.Drivers;

/// <summary>The compress driver: what is written to an image becomes compressed clusters.</summary>
internal sealed class CompressDisk(Qcow2Image image) : FilterDisk(image)
{
    public override async ValueTask WriteAsync(long offset, ReadOnlyMemory<byte> data, bool fua = false)
    {
        int clusterBytes = image.Header.Geometry.ClusterBytes;
        long end = offset + data.Length;
        for (long start = offset / clusterBytes * clusterBytes; start < end; start += clusterBytes)
        {
            byte[] cluster = new byte[(int)Math.Min(clusterBytes, VirtualBytes - start)];
            long from = Math.Max(start, offset);
            long to = Math.Min(start + cluster.Length, end);
            if (to - from < cluster.Length)
                await image.ReadAsync(start, cluster);
            data[(int)(from - offset)..(int)(to - offset)].CopyTo(cluster.AsMemory((int)(from - start)));
            await image.WriteCompressedAsync(start, cluster);
        }
        if (fua)
            await image.FlushAsync();
    }
}
