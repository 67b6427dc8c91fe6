using OrleansDisk.Qcow2.Format;

namespace OrleansDisk.Qcow2.Compression;

/// <summary>
/// Compresses clusters for <see cref="Qcow2Image.WriteCompressedClusterAsync"/>, outside the image's turns: whoever has
/// many of them runs one compressor on each of its threads. A compressor is used by one thread at a time.
/// </summary>
public abstract class ClusterCompressor : IDisposable
{
    private readonly int _clusterBytes;
    private byte[]? _padded;

    private protected ClusterCompressor(int clusterBytes) => _clusterBytes = clusterBytes;

    /// <summary>Makes a compressor.</summary>
    /// <param name="type">What the image's header says.</param>
    /// <param name="clusterBytes">Size of a cluster.</param>
    /// <exception cref="Qcow2UnsupportedException">It takes a library that this machine does not have.</exception>
    public static ClusterCompressor Create(CompressionType type, int clusterBytes)
    {
        if (type == CompressionType.Zstd)
        {
            Zstd.Require();
            return new ZstdCompressor(clusterBytes);
        }
        return Deflate.IsAvailable ? new DeflateCompressor(clusterBytes) : new DeflateStreamCompressor(clusterBytes);
    }

    /// <summary>Compresses one cluster.</summary>
    /// <param name="data">A cluster, or what the disk's end leaves of the last one, which is filled up with zeros.</param>
    /// <param name="target">Takes the compressed bytes; a cluster long.</param>
    /// <param name="bytes">How many there are: fewer than a cluster has.</param>
    /// <returns>False when they would be no fewer: the cluster is written as it is, then.</returns>
    public bool TryCompress(ReadOnlySpan<byte> data, Span<byte> target, out int bytes)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(data.Length, _clusterBytes);
        if (data.Length < _clusterBytes)
        {
            _padded ??= new byte[_clusterBytes];
            data.CopyTo(_padded);
            _padded.AsSpan(data.Length).Clear();
            data = _padded;
        }
        bytes = Compress(data, target[..(_clusterBytes - 1)]);
        return bytes > 0;
    }

    public void Dispose()
    {
        Dispose(true);
        GC.SuppressFinalize(this);
    }

    /// <summary>Compresses; returns the bytes, or 0 when the target is too small.</summary>
    private protected abstract int Compress(ReadOnlySpan<byte> data, Span<byte> target);

    protected virtual void Dispose(bool disposing)
    {
    }
}
