using System.IO.Compression;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Data;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Interop.Tests;

/// <summary>Compressed clusters that the engine writes: read by QEMU and by others, overwritten, discarded.</summary>
public sealed class CompressedWriteTests : IDisposable
{
    private readonly TemporaryDirectory _directory = new(inMemory: true);
    private readonly string _path;

    public CompressedWriteTests() => _path = _directory.File("disk.qcow2");

    public void Dispose() => _directory.Dispose();

    [Theory]
    [InlineData(2, 512, 16, CompressionType.Zlib)]
    [InlineData(2, 65536, 16, CompressionType.Zlib)]
    [InlineData(3, 512, 1, CompressionType.Zlib)]
    [InlineData(3, 4096, 2, CompressionType.Zlib)]
    [InlineData(3, 65536, 1, CompressionType.Zlib)]
    [InlineData(3, 65536, 16, CompressionType.Zlib)]
    [InlineData(3, 1 << 20, 8, CompressionType.Zlib)]
    [InlineData(3, 2 << 20, 64, CompressionType.Zlib)]
    [InlineData(3, 4096, 16, CompressionType.Zstd)]
    [InlineData(3, 65536, 4, CompressionType.Zstd)]
    [InlineData(3, 2 << 20, 16, CompressionType.Zstd)]
    public async Task What_is_written_compressed_is_read_by_everyone_and_can_be_overwritten(
        int version, int clusterBytes, int refcountBits, CompressionType type)
    {
        byte[] model = await CreateAsync(new CreateOptions
        {
            VirtualBytes = (2 << 20) + 1536,
            Version = version,
            ClusterBytes = clusterBytes,
            RefcountBits = refcountBits,
            CompressionType = type,
        });
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image image = await Qcow2Image.OpenAsync(_path, Disk.Writing(clusterBytes));
            await CompressAsync(image, model);
            await new ModelDisk(image, model, seed: 0).VerifyAsync();
        });
        await Judge.FindsCleanAsync(_path);
        Judge.ReadsAs(_path, model);
        Assert.Contains("compressed clusters", Tool.Run("qemu-img", "check", _path), StringComparison.Ordinal);
        Assert.DoesNotContain(" 0.00% compressed", Tool.Run("qemu-img", "check", _path), StringComparison.Ordinal);
        if (type == CompressionType.Zlib)
            SevenZipReads(model);
        await Exclusive.Run(() => Disk.ScribbleAsync(_path, model, seed: 5, Disk.Writing(clusterBytes), groups: 10, maxBytes: 100_000));
        await Judge.FindsCleanAsync(_path);
        Judge.ReadsAs(_path, model);
    }

    [Fact]
    public async Task A_data_file_and_encryption_have_no_compressed_clusters()
    {
        foreach (string options in (string[])[$"data_file={_path}.raw", "encrypt.format=aes,encrypt.key-secret=s"])
        {
            Tool.Run("qemu-img", "create", "-q", "-f", "qcow2", "--object", "secret,id=s,data=x", "-o", options, _path, "1M");
            await Exclusive.Run(async () =>
            {
                using var secret = new Qcow2.Crypto.Secret("x"u8);
                await using Qcow2Image image = await Qcow2Image.OpenAsync(_path, Disk.Writing(65536) with { Secret = secret });
                await Assert.ThrowsAsync<Qcow2UnsupportedException>(async () => await image.WriteCompressedAsync(0, new byte[65536]));
            });
            await Judge.OwnCheckFindsAtMostLeaksAsync(_path);
        }
    }

    [Fact]
    public async Task Neighbours_share_host_clusters_and_take_the_space_of_what_QEMU_makes()
    {
        byte[] model = await CreateAsync(new CreateOptions { VirtualBytes = 4 << 20 });
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image image = await Qcow2Image.OpenAsync(_path, Disk.Writing(65536));
            await CompressAsync(image, model);
        });
        string theirs = _directory.File("theirs");
        File.WriteAllBytes(theirs + ".raw", model);
        Tool.Run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", theirs + ".raw", theirs);
        long length = new FileInfo(theirs).Length;
        Assert.InRange(new FileInfo(_path).Length, length * 9 / 10, length * 11 / 10);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task Space_of_compressed_clusters_that_are_gone_is_used_again_while_others_are_written(bool passDiscard)
    {
        byte[] model = await CreateAsync(new CreateOptions { VirtualBytes = 4 << 20, ClusterBytes = 4096 });
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image image = await Qcow2Image.OpenAsync(_path, Disk.Writing(4096) with { PassDiscard = passDiscard });
            for (int round = 0; round < 6; round++)
            {
                await CompressAsync(image, model);
                await image.ReadAsync(0, new byte[100]);
                ValueTask discard = image.DiscardAsync(0, model.Length / 2);
                ValueTask flush = image.FlushAsync();
                await discard;
                await flush;
                await image.DiscardAsync(model.Length / 2, model.Length - (model.Length / 2));
                // Other bytes at the same places, so that what was kept of the old ones would show.
                new Random(round).NextBytes(model.AsSpan(0, model.Length / 3));
                model.AsSpan(model.Length / 3, 300_000).Fill((byte)round);
                if (round % 2 == 0)
                    await image.FlushAsync();
            }
            await CompressAsync(image, model);
            await new ModelDisk(image, model, seed: 0).VerifyAsync();
        });
        await Judge.FindsCleanAsync(_path);
        Judge.ReadsAs(_path, model);
        // Space that goes back to the host is used again no sooner than the host has it, which takes what it takes.
        Assert.True(passDiscard || new FileInfo(_path).Length < 2 * model.Length, $"the file has grown to {new FileInfo(_path).Length} bytes");
    }

    [Fact]
    public async Task A_cluster_that_holds_something_is_not_written_compressed()
    {
        byte[] model = await CreateAsync(new CreateOptions { VirtualBytes = 1 << 20 });
        model.AsSpan().Fill(7);
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image image = await Qcow2Image.OpenAsync(_path, Disk.Writing(65536));
            await image.WriteAsync(0, model.AsMemory(0, 65536));
            await image.WriteCompressedAsync(65536, model.AsMemory(0, 65536));
            await image.WriteZeroesAsync(131072, 65536, mayUnmap: true);
            await image.WriteCompressedAsync(131072, model.AsMemory(0, 65536));
            foreach (int at in (int[])[0, 65536, 131072])
            {
                Qcow2Exception refusal = await Assert.ThrowsAsync<Qcow2Exception>(async () => await image.WriteCompressedAsync(at, model.AsMemory(0, 65536)));
                Assert.Contains("write it uncompressed", refusal.Message, StringComparison.Ordinal);
            }
            await Assert.ThrowsAnyAsync<ArgumentException>(async () => await image.WriteCompressedAsync(512, model.AsMemory(0, 65536)));
            await Assert.ThrowsAnyAsync<ArgumentException>(async () => await image.WriteCompressedAsync(262144, model.AsMemory(0, 65535)));
            await Assert.ThrowsAnyAsync<ArgumentException>(async () => await image.WriteCompressedAsync(1 << 20, model.AsMemory(0, 65536)));
            Assert.True((await image.GetExtentAsync(65536, 65536)).IsCompressed);
            for (int at = 196608; at < model.Length; at += 65536)
                await image.WriteCompressedAsync(at, model.AsMemory(at, 65536));
        });
        await Judge.FindsCleanAsync(_path);
        Judge.ReadsAs(_path, model);
    }

    [Fact]
    public async Task A_cluster_that_gets_no_smaller_is_written_as_it_is()
    {
        byte[] model = await CreateAsync(new CreateOptions { VirtualBytes = 1 << 20 });
        new Random(3).NextBytes(model);
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image image = await Qcow2Image.OpenAsync(_path, Disk.Writing(65536));
            await CompressAsync(image, model);
            DiskExtent extent = await image.GetExtentAsync(0, 65536);
            Assert.Equal((DiskExtentState.Data, false), (extent.State, extent.IsCompressed));
        });
        await Judge.FindsCleanAsync(_path);
        Judge.ReadsAs(_path, model);
    }

    [Fact]
    public async Task QEMU_reads_deflate_of_the_class_librarys_window_too()
    {
        byte[] model = await CreateAsync(new CreateOptions { VirtualBytes = 1 << 20 });
        // Repeats at a distance that a window of 4 KiB does not reach.
        new Random(3).NextBytes(model.AsSpan(0, 20_000));
        for (int at = 20_000; at < model.Length; at++)
            model[at] = model[at - 20_000];
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image image = await Qcow2Image.OpenAsync(_path, Disk.Writing(65536));
            for (int at = 0; at < model.Length; at += 65536)
            {
                var compressed = new MemoryStream();
                using (var deflate = new DeflateStream(compressed, CompressionLevel.Optimal, leaveOpen: true))
                    deflate.Write(model, at, 65536);
                Assert.True(compressed.Length < 40_000);
                await image.WriteCompressedClusterAsync(at, compressed.ToArray());
            }
            await new ModelDisk(image, model, seed: 0).VerifyAsync();
        });
        await Judge.FindsCleanAsync(_path);
        Judge.ReadsAs(_path, model);
    }

    [Theory]
    [InlineData("zlib", 4096)]
    [InlineData("zlib", 65536)]
    [InlineData("zstd", 4096)]
    [InlineData("zstd", 65536)]
    [InlineData("zstd", 2 << 20)]
    public async Task What_QEMU_compressed_goes_on_in_the_same_image(string type, int clusterBytes)
    {
        byte[] model = Disk.MixedBytes(3 << 20, seed: 9);
        model.AsSpan(2 << 20).Clear();
        File.WriteAllBytes(_path + ".raw", model);
        Tool.Run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", $"compression_type={type},cluster_size={clusterBytes}", _path + ".raw", _path);
        Disk.MixedBytes(1 << 20, seed: 10).CopyTo(model, 2 << 20);
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image image = await Qcow2Image.OpenAsync(_path, Disk.Writing(clusterBytes));
            await CompressAsync(image, model, start: 2 << 20);
            await new ModelDisk(image, model, seed: 0).VerifyAsync();
        });
        await Judge.FindsCleanAsync(_path);
        Judge.ReadsAs(_path, model);
    }

    /// <summary>Makes an image; returns what its disk is to hold.</summary>
    private async Task<byte[]> CreateAsync(CreateOptions options)
    {
        await CreateOperation.CreateAsync(_path, options);
        return Disk.MixedBytes((int)options.VirtualBytes, seed: 4);
    }

    /// <summary>Writes a disk compressed, many clusters at once and in no order.</summary>
    private static async Task CompressAsync(Qcow2Image image, byte[] model, int start = 0)
    {
        int clusterBytes = image.Header.Geometry.ClusterBytes;
        int[] offsets = [.. Enumerable.Range(0, (model.Length - start + clusterBytes - 1) / clusterBytes).Select(i => start + (i * clusterBytes))];
        new Random(1).Shuffle(offsets);
        foreach (int[] together in offsets.Chunk(8))
        {
            await Task.WhenAll(together.Select(at =>
                image.WriteCompressedAsync(at, model.AsMemory(at, Math.Min(clusterBytes, model.Length - at))).AsTask()));
        }
    }

    /// <summary>7-Zip has a reader of its own.</summary>
    private void SevenZipReads(byte[] model)
    {
        Tool.Run("7zz", "e", "-y", "-tqcow", $"-o{_directory.File("extracted")}", _path);
        byte[] read = File.ReadAllBytes(Assert.Single(Directory.GetFiles(_directory.File("extracted"))));
        Assert.True(model.AsSpan().SequenceEqual(read), "7-Zip reads something else");
    }
}
