using System.Buffers;
using System.IO.Compression;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Qcow2.Data;

/// <summary>
/// Reads compressed clusters and keeps the last one, since guests read them in smaller pieces. Nothing writes
/// compressed clusters while the image is open, so an entry means the same bytes for as long.
/// </summary>
internal sealed class CompressedClusters(IBlockFile file, ClusterGeometry geometry)
{
    private byte[]? _lastBytes;
    private L2Entry _lastEntry;

    /// <summary>The bytes of a compressed cluster, valid until the next await.</summary>
    /// <exception cref="Qcow2Exception">The stream is damaged or yields less than a cluster.</exception>
    public async ValueTask<ReadOnlyMemory<byte>> ReadAsync(L2Entry entry, GuestCluster cluster)
    {
        if (_lastBytes is not null && _lastEntry == entry)
            return _lastBytes;
        CompressedExtent extent = entry.Compressed(geometry);
        byte[] compressed = ArrayPool<byte>.Shared.Rent(extent.Bytes);
        byte[] bytes = new byte[geometry.ClusterBytes];
        try
        {
            await file.ReadAsync(extent.Start.Bytes, compressed.AsMemory(0, extent.Bytes));
            // A raw deflate stream; what follows it in the last sector may belong to the next cluster.
            using var inflate = new DeflateStream(new MemoryStream(compressed, 0, extent.Bytes), CompressionMode.Decompress);
            inflate.ReadExactly(bytes);
        }
        catch (Exception e) when (e is InvalidDataException or EndOfStreamException)
        {
            throw new Qcow2Exception(
                $"'{file.Name}': the compressed data of {cluster} at host offset {extent.Start} can't be read: {e.Message}", e);
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(compressed);
        }
        (_lastEntry, _lastBytes) = (entry, bytes);
        return bytes;
    }
}
