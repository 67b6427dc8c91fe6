using OrleansDisk.Qcow2.Compression;
using OrleansDisk.Qcow2.Format;

namespace OrleansDisk.Qcow2.Tests.Compression;

public sealed class CompressorTests
{
    private const int ClusterBytes = 65536;

    public static TheoryData<string> Compressors => ["deflate", "deflate stream", "zstd"];

    [Fact]
    public void Deflate_has_its_small_window_here() => Assert.True(Deflate.IsAvailable);

    [Theory]
    [MemberData(nameof(Compressors))]
    public void A_cluster_comes_back_whatever_follows_its_stream(string name)
    {
        using ClusterCompressor compressor = Create(name);
        byte[] cluster = Cluster(distance: 20_000);
        byte[] target = new byte[ClusterBytes];
        for (int round = 0; round < 3; round++)
        {
            cluster[round] ^= 0x55;
            Assert.True(compressor.TryCompress(cluster, target, out int bytes));
            Assert.InRange(bytes, 1, ClusterBytes - 1);
            byte[] back = new byte[ClusterBytes];
            byte[] stored = [.. target.AsSpan(0, bytes), 0xff, 0xff, 0xff, 0, 1, 2, 3];
            ClusterDecompression.Decompress(TypeOf(name), stored, back);
            Assert.Equal(cluster, back);
        }
    }

    [Theory]
    [MemberData(nameof(Compressors))]
    public void A_cluster_that_the_disks_end_cuts_is_filled_up_with_zeros(string name)
    {
        using ClusterCompressor compressor = Create(name);
        byte[] target = new byte[ClusterBytes];
        Assert.True(compressor.TryCompress(Cluster(distance: 100), target, out _)); // leaves nothing behind
        Assert.True(compressor.TryCompress(new byte[] { 1, 2, 3 }, target, out int bytes));
        byte[] back = new byte[ClusterBytes];
        ClusterDecompression.Decompress(TypeOf(name), target.AsSpan(0, bytes), back);
        Assert.Equal([1, 2, 3, 0], back[..4]);
        Assert.Equal(-1, back.AsSpan(3).IndexOfAnyExcept((byte)0));
    }

    [Theory]
    [MemberData(nameof(Compressors))]
    public void Random_bytes_are_not_compressed(string name)
    {
        using ClusterCompressor compressor = Create(name);
        byte[] cluster = new byte[ClusterBytes];
        new Random(1).NextBytes(cluster);
        Assert.False(compressor.TryCompress(cluster, new byte[ClusterBytes], out int bytes));
        Assert.Equal(0, bytes);
    }

    [Theory]
    [MemberData(nameof(Compressors))]
    public void A_stream_that_is_damaged_or_cut_off_is_refused(string name)
    {
        using ClusterCompressor compressor = Create(name);
        byte[] target = new byte[ClusterBytes];
        Assert.True(compressor.TryCompress(Cluster(distance: 3000), target, out int bytes));
        byte[] cluster = new byte[ClusterBytes];
        Assert.Throws<InvalidDataException>(() => ClusterDecompression.Decompress(TypeOf(name), target.AsSpan(0, bytes / 2), cluster));
        Assert.Throws<InvalidDataException>(() => ClusterDecompression.Decompress(TypeOf(name), [], cluster));
        Assert.Throws<InvalidDataException>(() => ClusterDecompression.Decompress(TypeOf(name), new byte[512].Select(_ => (byte)0xff).ToArray(), cluster));
        for (int seed = 0; seed < 200; seed++)
        {
            byte[] damaged = target[..bytes];
            damaged[new Random(seed).Next(bytes)] ^= (byte)(1 << (seed % 8));
            try
            {
                ClusterDecompression.Decompress(TypeOf(name), damaged, cluster);
            }
            catch (InvalidDataException)
            {
                // Either is fine: the stream has no checksum.
            }
        }
    }

    [Fact]
    public void Several_frames_of_zstd_make_a_cluster()
    {
        byte[] cluster = Cluster(distance: 500);
        byte[] stored = new byte[2 * ClusterBytes];
        int length = 0;
        using (var half = ClusterCompressor.Create(CompressionType.Zstd, ClusterBytes / 2))
        {
            for (int at = 0; at < ClusterBytes; at += ClusterBytes / 2)
            {
                Assert.True(half.TryCompress(cluster.AsSpan(at, ClusterBytes / 2), stored.AsSpan(length), out int bytes));
                length += bytes;
            }
        }
        byte[] back = new byte[ClusterBytes];
        ClusterDecompression.Decompress(CompressionType.Zstd, stored.AsSpan(0, length + 100), back);
        Assert.Equal(cluster, back);
    }

    private static ClusterCompressor Create(string name) => name == "deflate stream"
        ? new DeflateStreamCompressor(ClusterBytes) : ClusterCompressor.Create(TypeOf(name), ClusterBytes);

    private static CompressionType TypeOf(string name) => name == "zstd" ? CompressionType.Zstd : CompressionType.Zlib;

    /// <summary>Random bytes that come again after some distance.</summary>
    private static byte[] Cluster(int distance)
    {
        byte[] bytes = new byte[ClusterBytes];
        new Random(distance).NextBytes(bytes.AsSpan(0, distance));
        for (int i = distance; i < bytes.Length / 2; i++)
            bytes[i] = bytes[i - distance];
        return bytes;
    }
}
