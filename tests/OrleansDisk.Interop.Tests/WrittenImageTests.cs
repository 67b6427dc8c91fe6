using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Interop.Tests;

/// <summary>Images that QEMU made and this engine wrote, judged by QEMU.</summary>
public sealed class WrittenImageTests
{
    private static readonly TaskFactory Exclusively = new(new ConcurrentExclusiveSchedulerPair().ExclusiveScheduler);

    public static TheoryData<string, int, int> Geometries()
    {
        var data = new TheoryData<string, int, int>();
        for (int clusterBits = 9; clusterBits <= 21; clusterBits++)
        {
            data.Add("0.10", clusterBits, 16);
            foreach (int refcountBits in (int[])[1, 2, 4, 8, 16, 32, 64])
                data.Add("1.1", clusterBits, refcountBits);
        }
        return data;
    }

    [Theory]
    [MemberData(nameof(Geometries))]
    public async Task Random_writes_leave_an_image_that_qemu_finds_clean_and_equal(string compat, int clusterBits, int refcountBits)
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = directory.File("disk.qcow2");
        int clusterBytes = 1 << clusterBits;
        int virtualBytes = Math.Clamp(clusterBytes * 96, 1 << 20, 12 << 20) + 1536;
        Tool.Run("qemu-img", "create", "-q", "-f", "qcow2",
            "-o", $"compat={compat},cluster_size={clusterBytes},refcount_bits={refcountBits}", path, virtualBytes.ToString());
        int seed = (clusterBits * 100) + refcountBits;
        await Run(async () =>
        {
            // Small caches, so that tables come and go.
            var options = new Qcow2OpenOptions { Access = ImageAccess.Write, L2CacheBytes = Math.Min(clusterBytes, ClusterGeometry.MaxL2SliceBytes) * 3, RefcountCacheBytes = clusterBytes * 2 };
            byte[] model = new byte[virtualBytes];
            await using (Qcow2Image image = await Qcow2Image.OpenAsync(path, options))
            {
                var disk = new ModelDisk(image, model, seed);
                await disk.RunAsync(groups: 25, depth: 8, maxBytes: clusterBytes * 5);
                await disk.VerifyAsync();
            }
            await using (Qcow2Image image = await Qcow2Image.OpenAsync(path, options with { Access = ImageAccess.Read }))
                await new ModelDisk(image, model, seed).VerifyAsync();
            File.WriteAllBytes(directory.File("model.raw"), model);
        });
        Tool.Run("qemu-img", "check", "-q", path);
        Tool.Run("qemu-img", "compare", "-f", "raw", "-F", "qcow2", directory.File("model.raw"), path);
    }

    private static Task Run(Func<Task> action) => Exclusively.StartNew(action).Unwrap();
}
