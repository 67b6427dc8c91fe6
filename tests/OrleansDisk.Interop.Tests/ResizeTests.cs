using System.Globalization;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Interop.Tests;

/// <summary>Disks become smaller and larger, by us and by QEMU, and each reads what the other left.</summary>
public sealed class ResizeTests
{
    [Theory]
    [InlineData(512, 16, "1.1")]
    [InlineData(4096, 1, "1.1")]
    [InlineData(65536, 64, "1.1")]
    [InlineData(65536, 16, "0.10")]
    public async Task A_disk_that_shrinks_gives_its_space_back_and_grows_again_as_zeros(int clusterBytes, int refcountBits, string version)
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = directory.File("disk");
        byte[] model = Disk.MixedBytes(8 << 20, seed: clusterBytes);
        Disk.Create(path, model.Length, $"cluster_size={clusterBytes},refcount_bits={refcountBits},compat={version}");
        int kept = (1 << 20) + 1536;
        await Disk.OnImageAsync(path, clusterBytes, async image =>
        {
            await image.WriteAsync(0, model);
            await image.FlushAsync();
            await image.ResizeAsync(kept);
            Assert.Equal(kept, image.VirtualBytes);
            // A table that has moved to the end of the file keeps the file long, not large.
            Assert.InRange(FileSpace.AllocatedBytes(path)!.Value, kept, 2 << 20);
            await image.ResizeAsync(model.Length);
            model.AsSpan(kept).Clear();
            await new ModelDisk(image, model, seed: 0).VerifyAsync();
            model.AsSpan(kept + 100, 1000).Fill(0x33);
            await image.WriteAsync(kept + 100, model.AsMemory(kept + 100, 1000));
        });
        await Judge.FindsCleanAsync(path);
        Judge.ReadsAs(path, model);
    }

    [Fact]
    public async Task What_a_snapshot_holds_stays_when_the_disk_shrinks()
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = directory.File("disk");
        Disk.Create(path, 4 << 20, "cluster_size=4096");
        Disk.QemuIo(path, "write -P 0x11 0 4M");
        Tool.Run("qemu-img", "snapshot", "-c", "before", path);
        await Disk.OnImageAsync(path, 4096, async image =>
        {
            await image.ResizeAsync(1 << 20);
        });
        await Judge.FindsCleanAsync(path);
        Tool.Run("qemu-img", "snapshot", "-a", "before", path);
        byte[] model = new byte[4 << 20];
        model.AsSpan().Fill(0x11);
        Judge.ReadsAs(path, model);
        await Judge.FindsCleanAsync(path);
    }

    [Theory]
    [InlineData(Preallocation.Metadata, 0)]
    [InlineData(Preallocation.Falloc, 8 << 20)]
    [InlineData(Preallocation.Full, 8 << 20)]
    public async Task Growth_is_preallocated_as_asked(Preallocation preallocation, long leastBytes)
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = directory.File("disk");
        byte[] model = new byte[(10 << 20) + 512];
        Disk.Create(path, (2 << 20) - 512, "cluster_size=65536");
        Disk.QemuIo(path, "write -P 0x22 1M 512k", "write -P 0x22 1920k 65024", "discard 1M 256k");
        model.AsSpan((1 << 20) + (256 << 10), 256 << 10).Fill(0x22);
        model.AsSpan(1920 << 10, 65024).Fill(0x22);
        await Disk.OnImageAsync(path, 65536, async image =>
        {
            await image.ResizeAsync(model.Length, preallocation);
            await new ModelDisk(image, model, seed: 0).VerifyAsync();
        });
        await Judge.FindsCleanAsync(path);
        Judge.ReadsAs(path, model);
        Assert.InRange(FileSpace.AllocatedBytes(path)!.Value, leastBytes, 16 << 20);
        string map = Tool.Run("qemu-img", "map", "--output=json", path);
        Assert.DoesNotContain($"\"start\": {4 << 20}", map); // the new part is one extent, and allocated
        Assert.Contains("\"present\": true", map);
        // Writes go into what is there: the file does not grow.
        long length = new FileInfo(path).Length;
        Disk.QemuIo(path, "write -P 0x33 3M 6M");
        Assert.Equal(length, new FileInfo(path).Length);
    }

    [Fact]
    public async Task An_overlay_of_a_longer_backing_file_shows_nothing_of_it_after_it_shrank_and_grew()
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string backing = directory.File("backing");
        string path = directory.File("disk");
        File.WriteAllBytes(backing, Disk.MixedBytes(6 << 20, seed: 1));
        Disk.CreateOverlay(path, backing, "raw", 6 << 20);
        byte[] model = File.ReadAllBytes(backing);
        await Disk.OnImageAsync(path, 65536, async image =>
        {
            await image.ResizeAsync((1 << 20) + 512);
            await image.ResizeAsync(model.Length, Preallocation.Metadata);
            model.AsSpan((1 << 20) + 512).Clear();
            await new ModelDisk(image, model, seed: 0).VerifyAsync();
        });
        await Judge.FindsCleanAsync(path);
        Judge.ReadsAs(path, model);
    }

    [Fact]
    public async Task A_disk_that_QEMU_shrank_grows_here_and_the_other_way_round()
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = directory.File("disk");
        byte[] model = new byte[6 << 20];
        Disk.Create(path, model.Length, "cluster_size=4096");
        Disk.QemuIo(path, "write -P 0x44 0 6M");
        Tool.Run("qemu-img", "resize", "-q", "--shrink", path, ((2 << 20) + 512).ToString(CultureInfo.InvariantCulture));
        model.AsSpan(0, (2 << 20) + 512).Fill(0x44);
        await Disk.OnImageAsync(path, 4096, async image =>
        {
            await image.ResizeAsync(model.Length);
            await new ModelDisk(image, model, seed: 0).VerifyAsync();
            await image.ResizeAsync(3 << 20);
        });
        await Judge.FindsCleanAsync(path);
        Tool.Run("qemu-img", "resize", "-q", path, "6M");
        Judge.ReadsAs(path, model);
        await Judge.FindsCleanAsync(path);
    }

    [Fact]
    public async Task Neither_a_version_2_image_with_snapshots_nor_a_preallocated_smaller_disk_is_possible()
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = directory.File("disk");
        Disk.Create(path, 1 << 20, "compat=0.10");
        Tool.Run("qemu-img", "snapshot", "-c", "one", path);
        string other = directory.File("other");
        Disk.Create(other, 1 << 20, "compat=1.1");
        await Disk.OnImageAsync(path, 65536, async image =>
        {
            Qcow2Exception e = await Assert.ThrowsAsync<Qcow2Exception>(() => image.ResizeAsync(1 << 19));
            Assert.Equal("Can't resize a v2 image which has snapshots", e.Message);
            await using Qcow2Image second = await Qcow2Image.OpenAsync(other, Disk.Writing(65536));
            e = await Assert.ThrowsAsync<Qcow2Exception>(() => second.ResizeAsync(1 << 19, Preallocation.Full));
            Assert.Equal("Preallocation can't be used for shrinking an image", e.Message);
        });
    }
}
