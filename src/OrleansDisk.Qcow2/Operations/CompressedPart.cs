using OrleansDisk.Qcow2.Compression;

namespace OrleansDisk.Qcow2.Operations;

/// <summary>A part of a disk, compressed cluster by cluster.</summary>
internal sealed class CompressedPart : IDisposable
{
    private readonly Qcow2Image _image;
    private readonly int _clusterBytes;
    private readonly ClusterCompressor _compressor;
    private readonly byte[] _buffer;

    /// <summary>Bytes of each cluster in the buffer; 0 when there is nothing to write, -1 when it did not get smaller.</summary>
    private readonly int[] _lengths;

    public CompressedPart(Qcow2Image image, int partBytes)
    {
        _image = image;
        _clusterBytes = image.Header.Geometry.ClusterBytes;
        _compressor = image.CreateCompressor();
        _buffer = GC.AllocateUninitializedArray<byte>(partBytes, pinned: true);
        _lengths = new int[partBytes / _clusterBytes];
    }

    /// <summary>Compresses all clusters of a part; on any thread.</summary>
    /// <param name="data">The part: whole clusters, but for the last one of a disk.</param>
    /// <param name="keepsZeros">Whether clusters of zeros are written, too.</param>
    public void Compress(ReadOnlySpan<byte> data, bool keepsZeros)
    {
        for (int i = 0; i * _clusterBytes < data.Length; i++)
        {
            int start = i * _clusterBytes;
            ReadOnlySpan<byte> cluster = data.Slice(start, Math.Min(_clusterBytes, data.Length - start));
            if (!keepsZeros && !cluster.ContainsAnyExcept((byte)0))
                _lengths[i] = 0;
            else
                _lengths[i] = _compressor.TryCompress(cluster, _buffer.AsSpan(start, _clusterBytes), out int bytes) ? bytes : -1;
        }
    }

    /// <summary>Writes what was compressed.</summary>
    /// <param name="offset">First byte of the part: the start of a cluster.</param>
    /// <param name="data">The part.</param>
    /// <param name="isZero">Whether the target reads as zeros already.</param>
    public async Task WriteAsync(long offset, ReadOnlyMemory<byte> data, bool isZero)
    {
        for (int i = 0; i * _clusterBytes < data.Length; i++)
        {
            int start = i * _clusterBytes;
            int bytes = Math.Min(_clusterBytes, data.Length - start);
            if (_lengths[i] > 0)
                await _image.WriteCompressedClusterAsync(offset + start, _buffer.AsMemory(start, _lengths[i]));
            else if (_lengths[i] < 0)
                await _image.WriteAsync(offset + start, data.Slice(start, bytes));
            else if (!isZero)
                await _image.WriteZeroesAsync(offset + start, bytes, mayUnmap: true);
        }
    }

    public void Dispose() => _compressor.Dispose();
}
