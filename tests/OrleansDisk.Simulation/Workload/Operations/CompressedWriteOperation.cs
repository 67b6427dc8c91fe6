using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Compression;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Simulation.Model;

namespace OrleansDisk.Simulation.Workload.Operations;

/// <summary>A cluster written compressed; as it is where the image holds something already, or is encrypted.</summary>
internal sealed record CompressedWriteOperation(long Cluster) : IOperation
{
    public static CompressedWriteOperation Draw(OperationDraw draw)
    {
        (long offset, _) = draw.Range();
        return new CompressedWriteOperation(offset / draw.Shape.ClusterBytes);
    }

    public async Task RunAsync(World world)
    {
        long offset = Cluster * world.Shape.ClusterBytes;
        int bytes = world.Shape.ClusterBytes;
        if (!world.TryClip(offset, ref bytes))
            return;
        using SectorHolds.Hold hold = await world.HoldAsync(offset, bytes);
        DiskModel.Change change = world.Model.BeginWrite(offset, bytes, out byte[] data);
        await world.ChangeAsync(change, bytes, isDurable: false, image => WriteAsync(image, offset, data));
    }

    private static async ValueTask WriteAsync(Qcow2Image image, long offset, byte[] data)
    {
        byte[] compressed = new byte[image.Header.Geometry.ClusterBytes];
        using ClusterCompressor compressor = image.CreateCompressor();
        // An external data file holds no compressed clusters, and an encrypted image none at all.
        bool canCompress = !image.Header.Geometry.HasExternalData && image.Header.Encryption == EncryptionMethod.None;
        if (canCompress && compressor.TryCompress(data, compressed, out int bytes))
        {
            try
            {
                await image.WriteCompressedClusterAsync(offset, compressed.AsMemory(0, bytes));
                return;
            }
            catch (Qcow2Exception e) when (e.Message.EndsWith("write it uncompressed", StringComparison.Ordinal))
            {
                // Something else was written there meanwhile.
            }
        }
        await image.WriteAsync(offset, data);
    }
}
