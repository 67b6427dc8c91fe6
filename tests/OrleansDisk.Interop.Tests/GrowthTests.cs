using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Interop.Tests;

/// <summary>Tables that outgrow their place, and disks that are made larger.</summary>
public sealed class GrowthTests
{
    [Theory]
    [InlineData(64)]
    [InlineData(16)]
    public async Task The_refcount_table_grows_as_often_as_the_file_needs_it(int refcountBits)
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = directory.File("disk");
        byte[] model = new byte[14 << 20];
        Disk.Create(path, model.Length, $"cluster_size=512,refcount_bits={refcountBits}");
        var lengths = new SortedSet<int> { await RefcountTableClustersAsync(path) };
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image image = await Qcow2Image.OpenAsync(path, Disk.Writing(512));
            new Random(1).NextBytes(model);
            for (int at = 0; at < model.Length; at += 1 << 20)
            {
                await image.WriteAsync(at, model.AsMemory(at, 1 << 20));
                await image.FlushAsync();
                lengths.Add(await RefcountTableClustersAsync(path));
                Assert.Equal(lengths.Max, image.Header.RefcountTableClusters);
            }
            await new ModelDisk(image, model, seed: 0).VerifyAsync();
        });
        Assert.True(lengths.Count >= (refcountBits == 64 ? 3 : 2), $"the refcount table had {string.Join(", ", lengths)} clusters");
        await Judge.FindsCleanAsync(path);
        Judge.ReadsAs(path, model);

        // And such an image, with a table of several clusters, opened and written again.
        await Exclusive.Run(() => Disk.ScribbleAsync(path, model, seed: 2, Disk.Writing(512), groups: 10, maxBytes: 100_000));
        await Judge.FindsCleanAsync(path);
        Judge.ReadsAs(path, model);
    }

    [Theory]
    [InlineData("0.10", 512)]
    [InlineData("1.1", 512)]
    [InlineData("1.1", 65536)]
    public async Task A_disk_grows_again_and_again_and_is_written_at_its_end(string compat, int clusterBytes)
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = directory.File("disk");
        byte[] model = new byte[700 * 512];
        Disk.Create(path, model.Length, $"compat={compat},cluster_size={clusterBytes}");
        await Exclusive.Run(async () =>
        {
            for (int step = 0; step < 4; step++)
            {
                await using Qcow2Image image = await Qcow2Image.OpenAsync(path, Disk.Writing(clusterBytes));
                await new ModelDisk(image, model, step).RunAsync(groups: 4, depth: 8, maxBytes: 50_000);
                Array.Resize(ref model, (model.Length * 3) + 512);
                await image.ResizeAsync(model.Length);
                Assert.Equal(model.Length, image.VirtualBytes);
                var disk = new ModelDisk(image, model, step + 100);
                await disk.VerifyAsync();
                model.AsSpan(model.Length - 1000).Fill((byte)(step + 1));
                await image.WriteAsync(model.Length - 1000, model.AsMemory(model.Length - 1000));
                await disk.RunAsync(groups: 4, depth: 8, maxBytes: 50_000);
                await disk.VerifyAsync();
            }
        });
        await Judge.FindsCleanAsync(path);
        Judge.ReadsAs(path, model);
    }

    [Theory]
    [InlineData("0.10")]
    [InlineData("1.1")]
    public async Task A_disk_that_grows_over_a_longer_backing_file_reads_zeros_there(string compat)
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = directory.File("disk");
        File.WriteAllBytes(directory.File("base"), Enumerable.Repeat((byte)0x5a, (1 << 20) + 700).ToArray());
        const int oldBytes = 100 * 512; // inside a cluster
        byte[] model = new byte[2 << 20];
        model.AsSpan(0, oldBytes).Fill(0x5a);
        Disk.CreateOverlay(path, "base", "raw", oldBytes, $"compat={compat},cluster_size=4k");
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image image = await Qcow2Image.OpenAsync(path, Disk.Writing(4096));
            model.AsSpan(oldBytes - 10, 10).Fill(0x11);
            await image.WriteAsync(oldBytes - 10, model.AsMemory(oldBytes - 10, 10));
            await image.ResizeAsync(model.Length);
            var disk = new ModelDisk(image, model, seed: 1);
            await disk.VerifyAsync();
            await disk.RunAsync(groups: 10, depth: 8, maxBytes: 50_000);
            await disk.VerifyAsync();
        });
        await Judge.FindsCleanAsync(path);
        Judge.ReadsAs(path, model);
    }

    [Fact]
    public async Task A_disk_does_not_grow_past_the_limit_of_its_L1_table()
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = directory.File("disk");
        Disk.Create(path, 1 << 20, "cluster_size=512");
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image image = await Qcow2Image.OpenAsync(path, Disk.Writing(512));
            await Assert.ThrowsAnyAsync<Qcow2Exception>(() => image.ResizeAsync(1L << 50));
            await Assert.ThrowsAnyAsync<Qcow2Exception>(() => image.ResizeAsync(long.MaxValue));
            await image.WriteAsync(0, new byte[] { 1 });
            await image.FlushAsync();
        });
        await Judge.FindsCleanAsync(path);
    }

    private static async Task<int> RefcountTableClustersAsync(string path)
    {
        await using var file = LocalBlockFile.Open(path, ImageAccess.ReadShared);
        return (await HeaderReader.ReadAsync(file)).RefcountTableClusters;
    }
}
