using System.Buffers;
using OrleansDisk.Qcow2.Compression;
using OrleansDisk.Qcow2.Format;

namespace OrleansDisk.Qcow2;

/// <summary>Writing compressed clusters, which only fresh parts of a disk can take.</summary>
public sealed partial class Qcow2Image
{
    private readonly Stack<ClusterCompressor> _idleCompressors = new();

    /// <summary>A compressor for this image's clusters; many may be at work at once, on threads of their own.</summary>
    public ClusterCompressor CreateCompressor() => ClusterCompressor.Create(Header.CompressionType, Header.Geometry.ClusterBytes);

    /// <summary>
    /// Compresses a cluster, on the thread pool, and writes it; as it is when it does not get smaller. Calls that are
    /// under way at once compress at once.
    /// </summary>
    /// <param name="offset">The cluster's first byte.</param>
    /// <param name="data">A whole cluster, or what the disk's end leaves of the last one; it belongs to the call until it completes.</param>
    /// <exception cref="Qcow2Exception">The image can't have a compressed cluster, or none there.</exception>
    public async ValueTask WriteCompressedAsync(long offset, ReadOnlyMemory<byte> data)
    {
        ThrowIfNotCompressible(offset);
        int clusterBytes = Header.Geometry.ClusterBytes;
        if (data.Length != Math.Min(clusterBytes, VirtualBytes - offset))
            throw new ArgumentException($"{data.Length} bytes at {offset} are not a whole cluster", nameof(data));
        byte[] compressed = ArrayPool<byte>.Shared.Rent(clusterBytes);
        if (!_idleCompressors.TryPop(out ClusterCompressor? compressor))
            compressor = CreateCompressor();
        try
        {
            int bytes = 0;
            await _metadata.RunBeside(() => compressor.TryCompress(data.Span, compressed, out bytes));
            if (bytes > 0)
                await WriteCompressedClusterAsync(offset, compressed.AsMemory(0, bytes));
            else
                await WriteAsync(offset, data);
        }
        finally
        {
            _idleCompressors.Push(compressor);
            ArrayPool<byte>.Shared.Return(compressed);
        }
    }

    /// <summary>Writes a cluster that a <see cref="ClusterCompressor"/> has compressed.</summary>
    /// <param name="offset">The cluster's first byte.</param>
    /// <param name="compressed">The compressed bytes; they belong to the call until it completes.</param>
    /// <exception cref="Qcow2Exception">The image can't have a compressed cluster, or none there.</exception>
    public ValueTask WriteCompressedClusterAsync(long offset, ReadOnlyMemory<byte> compressed)
    {
        ThrowIfNotCompressible(offset);
        ClusterGeometry geometry = Header.Geometry;
        if (compressed.Length == 0 || compressed.Length >= geometry.ClusterBytes)
            throw new ArgumentException($"{compressed.Length} bytes are no compressed cluster", nameof(compressed));
        return ChangeAsync(offset, Math.Min(geometry.ClusterBytes, VirtualBytes - offset), fua: false,
            () => _compressedWriter.WriteAsync(geometry.ClusterOf(new GuestOffset(offset)), compressed));
    }

    private void ThrowIfNotCompressible(long offset)
    {
        if (!Header.Geometry.IsAligned(offset))
            throw new ArgumentOutOfRangeException(nameof(offset), $"{offset} is not the start of a cluster");
        if (Header.Encryption != EncryptionMethod.None)
            throw new Qcow2UnsupportedException("a compressed cluster in an encrypted image", $"write '{FileName}' uncompressed");
        if (Header.Incompatible.HasFlag(IncompatibleFeatures.ExternalDataFile))
            throw new Qcow2UnsupportedException("a compressed cluster in an external data file", $"write '{FileName}' uncompressed");
    }
}
