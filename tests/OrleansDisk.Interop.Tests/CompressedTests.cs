using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Data;

namespace OrleansDisk.Interop.Tests;

/// <summary>Images whose clusters QEMU compressed: read, overwritten in part, discarded.</summary>
public sealed class CompressedTests
{
    [Theory]
    [InlineData("0.10", 512)]
    [InlineData("1.1", 512)]
    [InlineData("1.1", 4096)]
    [InlineData("0.10", 65536)]
    [InlineData("1.1", 65536)]
    [InlineData("1.1", 1 << 20)]
    [InlineData("1.1", 2 << 20)]
    public async Task Compressed_clusters_are_read_and_random_writes_over_them_leave_no_trace(string compat, int clusterBytes)
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = Compress(directory, out byte[] model, $"compat={compat},cluster_size={clusterBytes}");
        await Exclusive.Run(async () =>
        {
            await using (Qcow2Image image = await Qcow2Image.OpenAsync(path, new Qcow2OpenOptions()))
                await new ModelDisk(image, model, seed: 0).VerifyAsync();
            await Disk.ScribbleAsync(path, model, seed: clusterBytes, Disk.Writing(clusterBytes), groups: 20, maxBytes: 100_000);
        });
        await Judge.FindsCleanAsync(path);
        Judge.ReadsAs(path, model);
    }

    [Fact]
    public async Task An_overwritten_part_of_a_compressed_cluster_keeps_the_rest()
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = Compress(directory, out byte[] model, "cluster_size=64k");
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image image = await Qcow2Image.OpenAsync(path, Disk.Writing(65536));
            int compressed = 0;
            for (int at = 0; at + 65536 <= model.Length; at += 65536)
            {
                compressed += (await image.GetExtentAsync(at, 65536)).IsCompressed ? 1 : 0;
                model.AsSpan(at + 1000, 3000).Fill(0xee);
                await image.WriteAsync(at + 1000, model.AsMemory(at + 1000, 3000));
                Assert.Equal(DiskExtentState.Data, (await image.GetExtentAsync(at, 65536)).State);
            }
            Assert.True(compressed > 4, $"qemu-img compressed only {compressed} clusters");
        });
        await Judge.FindsCleanAsync(path);
        Judge.ReadsAs(path, model);
    }

    [Fact]
    public async Task Discarding_every_compressed_cluster_frees_every_host_cluster()
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = Compress(directory, out byte[] model, "cluster_size=4k,refcount_bits=8");
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image image = await Qcow2Image.OpenAsync(path, Disk.Writing(4096));
            // In an order that leaves neighbours in the same host cluster for later.
            for (int at = 0; at < model.Length; at += 8192)
                await image.DiscardAsync(at, Math.Min(4096, model.Length - at));
            await image.FlushAsync();
            for (int at = 4096; at < model.Length; at += 8192)
                await image.DiscardAsync(at, Math.Min(4096, model.Length - at));
        });
        await Judge.FindsCleanAsync(path);
        Judge.ReadsAs(path, new byte[model.Length]);
        Assert.DoesNotContain("allocated", Tool.Run("qemu-img", "check", path), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_snapshot_of_compressed_clusters_survives_writes_over_them()
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = Compress(directory, out byte[] model, "cluster_size=64k");
        Tool.Run("qemu-img", "snapshot", "-c", "kept", path);
        byte[] kept = [.. model];
        await Exclusive.Run(() => Disk.ScribbleAsync(path, model, seed: 3, Disk.Writing(65536), groups: 20, maxBytes: 100_000));
        await Judge.FindsCleanAsync(path);
        Judge.ReadsAs(path, model);
        Assert.True(Judge.ReadSnapshot(path, "kept").AsSpan().SequenceEqual(kept));
    }

    [Fact]
    public async Task Compressed_data_that_is_damaged_fails_the_read_and_not_the_image()
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = directory.File("disk.qcow2");
        File.WriteAllBytes(directory.File("raw"), Enumerable.Repeat((byte)0x41, 2 * 65536).ToArray());
        Tool.Run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", directory.File("raw"), path);
        using (FileStream file = File.OpenWrite(path))
        {
            file.Position = 5 * 65536; // header, refcount table and block, L1, L2, then the first data
            file.Write(Enumerable.Repeat((byte)0xff, 16).ToArray());
        }
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image image = await Qcow2Image.OpenAsync(path, Disk.Writing(65536));
            Qcow2Exception error = await Assert.ThrowsAnyAsync<Qcow2Exception>(async () => await image.ReadAsync(0, new byte[512]));
            Assert.Contains("compressed", error.Message, StringComparison.Ordinal);
            byte[] other = new byte[65536];
            await image.ReadAsync(65536, other);
            Assert.False(other.AsSpan().ContainsAnyExcept((byte)0x41));
            await image.WriteAsync(0, new byte[65536]);
            await image.ReadAsync(0, other);
            Assert.False(other.AsSpan().ContainsAnyExcept((byte)0));
        });
        await Judge.FindsCleanAsync(path);
    }

    private static string Compress(TemporaryDirectory directory, out byte[] bytes, string options)
    {
        bytes = Disk.MixedBytes((2 << 20) + 1536, seed: 4);
        File.WriteAllBytes(directory.File("raw"), bytes);
        string path = directory.File("disk.qcow2");
        Tool.Run("qemu-img", "convert", "-q", "-c", "-f", "raw", "-O", "qcow2", "-o", options, directory.File("raw"), path);
        return path;
    }
}
