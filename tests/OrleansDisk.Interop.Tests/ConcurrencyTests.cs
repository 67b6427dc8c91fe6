using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Interop.Tests;

/// <summary>Many overlapping requests at once, with file operations that overtake each other, on tiny caches.</summary>
public sealed class ConcurrencyTests
{
    private const int SectorCount = 768;

    public static TheoryData<int, int, int, int> Runs()
    {
        var data = new TheoryData<int, int, int, int>();
        (int ClusterBytes, int RefcountBits, int Version)[] geometries =
            [(512, 64, 3), (512, 16, 2), (1024, 1, 3), (4096, 16, 3), (16384, 8, 3), (65536, 16, 2)];
        foreach ((int clusterBytes, int refcountBits, int version) in geometries)
        {
            for (int seed = 1; seed <= 3; seed++)
                data.Add(clusterBytes, refcountBits, version, seed);
        }
        // A write-back that ended inside the release of freed clusters: leaks.
        data.Add(512, 64, 3, 23);
        data.Add(512, 64, 3, 37);
        return data;
    }

    [Theory]
    [MemberData(nameof(Runs))]
    public async Task Overlapping_requests_leave_in_every_sector_what_one_of_the_last_of_them_wrote(
        int clusterBytes, int refcountBits, int version, int seed)
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = directory.File("disk");
        var random = new Random(seed);
        var file = new MemoryFile { Turns = () => random.Next(3) == 0 ? random.Next(24) : 0 };
        byte[] bytes = [];
        await Exclusive.Run(async () =>
        {
            await CreateOperation.CreateAsync(file, new CreateOptions
            {
                VirtualBytes = SectorCount * 512,
                ClusterBytes = clusterBytes,
                RefcountBits = refcountBits,
                Version = version,
            });
            await using (Qcow2Image image = await Qcow2Image.OpenAsync(file, Disk.Writing(clusterBytes)))
            {
                var disk = new StampedDisk(image, SectorCount, clusterBytes, seed);
                for (int round = 0; round < 4; round++)
                {
                    await disk.RunAsync(operationCount: 500, depth: 4 + (round * 8));
                    bytes = await disk.VerifyAsync();
                }
                await image.CloseAsync();
                Assert.False(image.HasFailed);
            }
        });
        await File.WriteAllBytesAsync(path, file.ToArray());
        await Judge.FindsCleanAsync(path);
        Judge.ReadsAs(path, bytes);
    }

    [Fact]
    public async Task Overlapping_requests_over_a_snapshot_and_a_backing_file_keep_both()
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = directory.File("disk");
        File.WriteAllBytes(directory.File("base"), new byte[SectorCount * 512]);
        Disk.CreateOverlay(path, "base", "raw", SectorCount * 512, "cluster_size=1k");
        Tool.Run("qemu-img", "snapshot", "-c", "empty", path);
        byte[] bytes = [];
        for (int seed = 1; seed <= 3; seed++)
        {
            await Exclusive.Run(async () =>
            {
                await using Qcow2Image image = await Qcow2Image.OpenAsync(path, Disk.Writing(1024));
                var disk = new StampedDisk(image, SectorCount, 1024, seed);
                await image.WriteZeroesAsync(0, SectorCount * 512, mayUnmap: true);
                await disk.RunAsync(operationCount: 600, depth: 16);
                bytes = await disk.VerifyAsync();
            });
            await Judge.FindsCleanAsync(path);
            Judge.ReadsAs(path, bytes);
            Tool.Run("qemu-img", "snapshot", "-c", $"s{seed}", path);
        }
        Assert.False(Judge.ReadSnapshot(path, "empty").AsSpan().ContainsAnyExcept((byte)0));
    }

    [Fact]
    public async Task Closing_waits_for_what_is_under_way()
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = directory.File("disk");
        Disk.Create(path, 4 << 20, "cluster_size=4k");
        byte[] data = Disk.MixedBytes(4 << 20, seed: 8);
        await Exclusive.Run(async () =>
        {
            Qcow2Image image = await Qcow2Image.OpenAsync(path, Disk.Writing(4096));
            List<Task> writes = [.. Enumerable.Range(0, 16).Select(i => image.WriteAsync(i << 18, data.AsMemory(i << 18, 1 << 18)).AsTask())];
            Task closed = image.CloseAsync();
            await Task.WhenAll(writes);
            await closed;
            await Assert.ThrowsAnyAsync<Exception>(async () => await image.WriteAsync(0, new byte[512]));
            await Assert.ThrowsAnyAsync<Exception>(async () => await image.ReadAsync(0, new byte[512]));
            await image.CloseAsync();
        });
        await Judge.FindsCleanAsync(path);
        Judge.ReadsAs(path, data);
    }
}
