using OrleansDisk.Qcow2.Concurrency;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Metadata;

namespace OrleansDisk.Qcow2.Data;

/// <summary>Writes clusters that are compressed already, where the image has none yet.</summary>
internal sealed class CompressedWriter(ImageMetadata metadata)
{
    /// <summary>Writes one cluster. The caller is inside the gate.</summary>
    /// <param name="cluster">A guest cluster that has no host cluster.</param>
    /// <param name="compressed">Its bytes, compressed: fewer than a cluster has.</param>
    /// <exception cref="Qcow2Exception">The guest cluster has a host cluster.</exception>
    public async ValueTask WriteAsync(GuestCluster cluster, ReadOnlyMemory<byte> compressed)
    {
        using ClusterReservations.Reservation reservation = await ReserveAsync(cluster);
        CompressedExtent extent = await metadata.CompressedSpace.ReserveAsync(compressed.Length);
        try
        {
            try
            {
                await metadata.File.WriteAsync(extent.Start.Bytes, compressed);
            }
            finally
            {
                metadata.Order.NoteDataWritten();
            }
            using TablePin pin = await metadata.L2Tables.PinForChangeAsync(cluster);
            metadata.Health.ThrowIfFailed();
            metadata.L2Tables.Write(pin.Table, cluster, L2Entry.To(extent, metadata.Geometry));
        }
        catch (Exception) when (!metadata.Health.HasFailed)
        {
            await metadata.CompressedSpace.AbandonAsync(extent);
            throw;
        }
    }

    private async ValueTask<ClusterReservations.Reservation> ReserveAsync(GuestCluster cluster)
    {
        while (true)
        {
            using TablePin pin = await metadata.L2Tables.PinForChangeAsync(cluster);
            if (metadata.Reservations.Find(cluster) is { } other)
            {
                await other.Ended;
                continue;
            }
            L2Entry entry = ClusterRun.ReadEntry(pin.Table, cluster, metadata.Header);
            if (entry.Kind(metadata.Geometry) is not (ClusterKind.Unallocated or ClusterKind.ZeroPlain))
            {
                throw new Qcow2Exception(
                    $"{metadata.Geometry.OffsetOf(cluster)} can't be written compressed: '{metadata.File.Name}' holds data there; write it uncompressed");
            }
            return metadata.Reservations.Reserve(cluster, 1);
        }
    }
}
