using OrleansDisk.Interop.Tests.Snapshots;
using OrleansDisk.Qcow2;

namespace OrleansDisk.Interop.Tests;

/// <summary>Images with internal snapshots made by QEMU: the active disk is written, the snapshots stay as they were.</summary>
public sealed class SnapshotTests
{
    [Theory]
    [MemberData(nameof(SnapshotModel.Geometries), MemberType = typeof(SnapshotModel))]
    public async Task Writes_after_each_snapshot_leave_every_snapshot_as_it_was(string compat, int clusterBytes, int refcountBits)
    {
        using var model = new SnapshotModel((2 << 20) + 1536, clusterBytes, $"compat={compat},refcount_bits={refcountBits}");
        await model.WriteAsync(seed: 1);
        for (int i = 0; i < 2; i++)
        {
            Tool.Run("qemu-img", "snapshot", "-c", $"s{i}", model.Path);
            model.NoteTaken($"s{i}");
            await model.WriteAsync(seed: 2 + i);
            await model.JudgeAsync();
        }

        // A snapshot goes: clusters become the disk's own again. Then back to the other one, and on.
        Tool.Run("qemu-img", "snapshot", "-d", "s0", model.Path);
        model.NoteDeleted("s0");
        await model.WriteAsync(seed: 4);
        await model.JudgeAsync();
        Tool.Run("qemu-img", "snapshot", "-a", "s1", model.Path);
        model.NoteApplied("s1");
        await model.WriteAsync(seed: 5);
        await model.JudgeAsync();
    }

    [Fact]
    public async Task Clusters_at_the_largest_refcount_that_two_bits_hold_are_copied_on_write()
    {
        using var model = new SnapshotModel(1 << 20, 4096, "refcount_bits=2");
        Disk.MixedBytes(model.Contents.Length, seed: 9).CopyTo(model.Contents, 0);
        await model.OnImageAsync(image => image.WriteAsync(0, model.Contents).AsTask());
        foreach (string name in (string[])["a", "b"])
        {
            Tool.Run("qemu-img", "snapshot", "-c", name, model.Path);
            model.NoteTaken(name);
        }
        (int status, _) = Tool.Try("qemu-img", "snapshot", "-c", "c", model.Path);
        Assert.NotEqual(0, status); // refcounts of 3 everywhere: no room for a fourth reference
        await model.WriteAsync(seed: 10);
        await Judge.FindsAtMostLeaksAsync(model.Path); // what the failed snapshot left is QEMU's
        model.JudgeContents();
    }

    [Fact]
    public async Task An_image_with_one_bit_refcounts_survives_a_snapshot_that_failed()
    {
        using var model = new SnapshotModel(1 << 20, 4096, "refcount_bits=1");
        await model.WriteAsync(seed: 1);
        (int status, _) = Tool.Try("qemu-img", "snapshot", "-c", "a", model.Path);
        Assert.NotEqual(0, status);
        await model.WriteAsync(seed: 2);
        await Judge.FindsAtMostLeaksAsync(model.Path);
        model.JudgeContents();
    }

    [Fact]
    public async Task Discards_and_zeros_over_a_snapshot_take_nothing_from_it()
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = directory.File("disk.qcow2");
        Disk.Create(path, 1 << 20, "cluster_size=64k");
        Disk.QemuIo(path, "write -P 0x77 0 1M");
        Tool.Run("qemu-img", "snapshot", "-c", "full", path);
        await Disk.OnImageAsync(path, 65536, async image =>
        {
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
            await Disk.OnImageAsync(path, 512, async image =>
            {
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
}
