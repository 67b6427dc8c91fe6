using OrleansDisk.Qcow2;

namespace OrleansDisk.Interop.Tests;

/// <summary>Images with internal snapshots made by QEMU: the active disk is written, the snapshots stay as they were.</summary>
public sealed class SnapshotTests
{
    public static TheoryData<string, int, int> Geometries() => new()
    {
        { "0.10", 65536, 16 },
        { "0.10", 512, 16 },
        { "1.1", 65536, 2 },
        { "1.1", 4096, 2 },
        { "1.1", 512, 4 },
        { "1.1", 65536, 8 },
        { "1.1", 2 << 20, 16 },
        { "1.1", 1024, 32 },
        { "1.1", 512, 64 },
    };

    [Theory]
    [MemberData(nameof(Geometries))]
    public async Task Writes_after_each_snapshot_leave_every_snapshot_as_it_was(string compat, int clusterBytes, int refcountBits)
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = directory.File("disk.qcow2");
        byte[] model = new byte[(2 << 20) + 1536];
        Disk.Create(path, model.Length, $"compat={compat},cluster_size={clusterBytes},refcount_bits={refcountBits}");
        await WriteAsync(path, model, seed: 1, clusterBytes);
        var snapshots = new Dictionary<string, byte[]>();
        for (int i = 0; i < 2; i++)
        {
            Tool.Run("qemu-img", "snapshot", "-c", $"s{i}", path);
            snapshots[$"s{i}"] = [.. model];
            await WriteAsync(path, model, seed: 2 + i, clusterBytes);
            await JudgeAsync(path, model, snapshots);
        }

        // A snapshot goes: clusters become the disk's own again. Then back to the other one, and on.
        Tool.Run("qemu-img", "snapshot", "-d", "s0", path);
        snapshots.Remove("s0");
        await WriteAsync(path, model, seed: 4, clusterBytes);
        await JudgeAsync(path, model, snapshots);
        Tool.Run("qemu-img", "snapshot", "-a", "s1", path);
        snapshots["s1"].CopyTo(model, 0);
        await WriteAsync(path, model, seed: 5, clusterBytes);
        await JudgeAsync(path, model, snapshots);
    }

    [Fact]
    public async Task Clusters_at_the_largest_refcount_that_two_bits_hold_are_copied_on_write()
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = directory.File("disk.qcow2");
        byte[] model = Disk.MixedBytes(1 << 20, seed: 9);
        Disk.Create(path, model.Length, "cluster_size=4k,refcount_bits=2");
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image image = await Qcow2Image.OpenAsync(path, Disk.Writing(4096));
            await image.WriteAsync(0, model);
        });
        Tool.Run("qemu-img", "snapshot", "-c", "a", path);
        Tool.Run("qemu-img", "snapshot", "-c", "b", path);
        (int status, _) = Tool.Try("qemu-img", "snapshot", "-c", "c", path);
        Assert.NotEqual(0, status); // refcounts of 3 everywhere: no room for a fourth reference
        var snapshots = new Dictionary<string, byte[]> { ["a"] = [.. model], ["b"] = [.. model] };
        await WriteAsync(path, model, seed: 10, 4096);
        await Judge.FindsAtMostLeaksAsync(path); // what the failed snapshot left is QEMU's
        Judge.ReadsAs(path, model);
        Assert.All(snapshots, s => Assert.True(Judge.ReadSnapshot(path, s.Key).AsSpan().SequenceEqual(s.Value), s.Key));
    }

    [Fact]
    public async Task An_image_with_one_bit_refcounts_survives_a_snapshot_that_failed()
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = directory.File("disk.qcow2");
        byte[] model = new byte[1 << 20];
        Disk.Create(path, model.Length, "cluster_size=4k,refcount_bits=1");
        await WriteAsync(path, model, seed: 1, 4096);
        (int status, _) = Tool.Try("qemu-img", "snapshot", "-c", "a", path);
        Assert.NotEqual(0, status);
        await WriteAsync(path, model, seed: 2, 4096);
        await Judge.FindsAtMostLeaksAsync(path);
        Judge.ReadsAs(path, model);
    }

    [Fact]
    public async Task Discards_and_zeros_over_a_snapshot_take_nothing_from_it()
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = directory.File("disk.qcow2");
        Disk.Create(path, 1 << 20, "cluster_size=64k");
        Disk.QemuIo(path, "write -P 0x77 0 1M");
        Tool.Run("qemu-img", "snapshot", "-c", "full", path);
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image image = await Qcow2Image.OpenAsync(path, Disk.Writing(65536));
            await image.DiscardAsync(0, 4 * 65536);
            await image.WriteZeroesAsync(4 * 65536, 4 * 65536, mayUnmap: true);
            await image.WriteZeroesAsync(8 * 65536, 4 * 65536, mayUnmap: false);
            await image.FlushAsync();
            await image.WriteAsync((8 * 65536) + 5000, Enumerable.Repeat((byte)0x12, 100).ToArray());
        });
        await Judge.FindsCleanAsync(path);
        Disk.QemuIo(path, "read -P 0 0 529288", "read -P 0x12 529288 100", "read -P 0 529388 257044", "read -P 0x77 768k 256k");
        Assert.False(Judge.ReadSnapshot(path, "full").AsSpan().ContainsAnyExcept((byte)0x77));
    }

    [Fact]
    public async Task A_version_2_disk_with_snapshots_does_not_grow_and_a_version_3_disk_does()
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        foreach (string compat in (string[])["0.10", "1.1"])
        {
            string path = directory.File(compat);
            Disk.Create(path, 1 << 20, $"compat={compat},cluster_size=512");
            Disk.QemuIo(path, "write -P 0x77 0 1M");
            Tool.Run("qemu-img", "snapshot", "-c", "small", path);
            await Exclusive.Run(async () =>
            {
                await using Qcow2Image image = await Qcow2Image.OpenAsync(path, Disk.Writing(512));
                if (compat == "0.10")
                {
                    await Assert.ThrowsAnyAsync<Qcow2Exception>(() => image.ResizeAsync(4 << 20));
                    return;
                }
                await image.ResizeAsync(4 << 20);
                await image.WriteAsync((4 << 20) - 100, new byte[100]);
                await image.WriteAsync(0, new byte[100]);
            });
            await Judge.FindsCleanAsync(path);
            Assert.False(Judge.ReadSnapshot(path, "small").AsSpan(0, 1 << 20).ContainsAnyExcept((byte)0x77));
        }
    }

    private static Task WriteAsync(string path, byte[] model, int seed, int clusterBytes) => Exclusive.Run(() =>
        Disk.ScribbleAsync(path, model, seed, Disk.Writing(clusterBytes), groups: 8, maxBytes: Math.Max(40_000, clusterBytes / 2)));

    private static async Task JudgeAsync(string path, byte[] model, Dictionary<string, byte[]> snapshots)
    {
        await Judge.FindsCleanAsync(path);
        Judge.ReadsAs(path, model);
        foreach ((string name, byte[] bytes) in snapshots)
            Assert.True(Judge.ReadSnapshot(path, name).AsSpan().SequenceEqual(bytes), $"snapshot {name} has changed");
    }
}
