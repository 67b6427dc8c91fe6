using System.IO.Compression;
using OrleansDisk.Qcow2.Format;

namespace OrleansDisk.Qcow2.Compression;

/// <summary>Decompresses clusters; any number of threads may do so at once.</summary>
internal static class ClusterDecompression
{
    /// <summary>Refuses an image whose clusters can't be decompressed on this machine.</summary>
    /// <exception cref="Qcow2UnsupportedException">It takes a library that is not there; the message names it.</exception>
    public static void Require(CompressionType type)
    {
        if (type == CompressionType.Zstd)
            Zstd.Require();
    }

    /// <summary>
    /// Fills a cluster. What follows its stream in <paramref name="stored"/>, whose end is only known to a sector, is
    /// left alone: it may be the next cluster's.
    /// </summary>
    /// <exception cref="InvalidDataException">The stream is damaged or ends early.</exception>
    public static void Decompress(CompressionType type, ReadOnlySpan<byte> stored, Span<byte> cluster)
    {
        bool isFull = type == CompressionType.Zstd ? Zstd.TryDecompress(stored, cluster)
            : Deflate.IsAvailable ? Deflate.TryInflate(stored, cluster) : TryInflateStream(stored, cluster);
        if (!isFull)
            throw new InvalidDataException("the stream is damaged, or ends before the cluster is full");
    }

    private static bool TryInflateStream(ReadOnlySpan<byte> stored, Span<byte> cluster)
    {
        using var inflate = new DeflateStream(new MemoryStream(stored.ToArray()), CompressionMode.Decompress);
        return inflate.ReadAtLeast(cluster, cluster.Length, throwOnEndOfStream: false) == cluster.Length;
    }
}
