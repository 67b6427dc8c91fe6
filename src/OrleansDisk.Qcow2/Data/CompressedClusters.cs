using System.Buffers;
using OrleansDisk.Qcow2.Compression;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Metadata;

namespace OrleansDisk.Qcow2.Data;

/// <summary>
/// Reads compressed clusters and keeps the last ones, since guests read them in smaller pieces. Decompressing a large
/// cluster leaves the image's scheduler meanwhile.
/// </summary>
internal sealed class CompressedClusters(ImageMetadata metadata)
{
    private const int KeptBytes = 1 << 20;

    /// <summary>Up to this size a cluster is decompressed sooner than another thread has begun with it.</summary>
    private const int InlineBytes = 8 << 10;

    private readonly ClusterGeometry _geometry = metadata.Geometry;

    /// <summary>What was read last, the latest at the end; some of it may still be on its way.</summary>
    private readonly List<(L2Entry Entry, Task<byte[]> Bytes)> _kept = [];
    private long _freedCount;

    /// <summary>Fills the buffer from a part of a compressed cluster.</summary>
    /// <exception cref="Qcow2Exception">The stream is damaged or yields less than a cluster.</exception>
    public async ValueTask ReadAsync(L2Entry entry, GuestCluster cluster, int offsetInCluster, Memory<byte> target)
    {
        ForgetFreed();
        int index = _kept.FindIndex(one => one.Entry == entry);
        if (index < 0 && target.Length == _geometry.ClusterBytes)
        {
            await DecompressAsync(entry, cluster, target); // nobody comes back for the rest
            return;
        }
        Task<byte[]> load = index < 0 ? LoadAsync(entry, cluster) : _kept[index].Bytes;
        if (index >= 0)
            _kept.RemoveAt(index);
        else if (_kept.Count >= Math.Max(2, KeptBytes >> _geometry.ClusterBits))
            _kept.RemoveAt(0);
        _kept.Add((entry, load));
        byte[] bytes;
        try
        {
            bytes = await load;
        }
        catch
        {
            _kept.Remove((entry, load));
            throw;
        }
        bytes.AsSpan(offsetInCluster, target.Length).CopyTo(target.Span);
    }

    /// <summary>
    /// An entry means the same bytes until one of its host clusters becomes free, and nobody who saw the entry is under
    /// way by then (docs/consistency.md, W5).
    /// </summary>
    private void ForgetFreed()
    {
        if (_freedCount == metadata.FreedCount)
            return;
        _freedCount = metadata.FreedCount;
        _kept.Clear();
    }

    private async Task<byte[]> LoadAsync(L2Entry entry, GuestCluster cluster)
    {
        byte[] bytes = new byte[_geometry.ClusterBytes];
        await DecompressAsync(entry, cluster, bytes);
        return bytes;
    }

    private async ValueTask DecompressAsync(L2Entry entry, GuestCluster cluster, Memory<byte> target)
    {
        CompressedExtent extent = entry.Compressed(_geometry);
        byte[] stored = ArrayPool<byte>.Shared.Rent(extent.Bytes);
        try
        {
            await metadata.File.ReadAsync(extent.Start.Bytes, stored.AsMemory(0, extent.Bytes));
            CompressionType type = metadata.Header.CompressionType;
            void Decompress() => ClusterDecompression.Decompress(type, stored.AsSpan(0, extent.Bytes), target.Span);
            if (target.Length <= InlineBytes)
                Decompress();
            else
                await metadata.RunBeside(Decompress);
        }
        catch (InvalidDataException e)
        {
            throw new Qcow2Exception(
                $"'{metadata.File.Name}': the compressed data of {cluster} at host offset {extent.Start} can't be read: {e.Message}", e);
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(stored);
        }
    }
}
