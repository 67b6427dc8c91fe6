using System.Text.Json;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Data;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Interop.Tests;

/// <summary>discard-no-unref: what the guest gives up keeps its place in the file, without its space.</summary>
public sealed class KeptClusterTests : IDisposable
{
    private const int DiskBytes = 8 << 20;
    private readonly TemporaryDirectory _directory = new(inMemory: true);
    private readonly string _path;

    public KeptClusterTests() => _path = _directory.File("disk");

    public void Dispose() => _directory.Dispose();

    [Theory]
    [InlineData(true, "")]
    [InlineData(true, ",extended_l2=on")]
    [InlineData(false, "")]
    public async Task What_is_discarded_reads_as_zeros_and_comes_back_at_its_old_place(bool passes, string options)
    {
        Disk.Create(_path, DiskBytes, "compat=1.1" + options);
        await WithImageAsync(passes, image => image.WriteAsync(0, Filled(DiskBytes, 0x51)));
        (long start, long end) = (Place(1 << 20), Place(2 << 20));
        long length = new FileInfo(_path).Length;
        await WithImageAsync(passes, async image =>
        {
            await image.DiscardAsync((1 << 20) + 5, (1 << 20) - 5);
            await image.WriteZeroesAsync(4 << 20, 1 << 20, mayUnmap: true);
            Assert.Equal(new DiskExtent(65536, DiskExtentState.ZeroAllocated, start + 65536), await image.GetExtentAsync((1 << 20) + 65536, 65536));
        });
        Disk.QemuIo(_path, "read -P 0x51 0 1088k", "read -P 0 1088k 960k", "read -P 0x51 2M 2M", "read -P 0 4M 1M", "read -P 0x51 5M 3M");
        Assert.Equal(passes, await FirstHoleAsync() < end);
        await Judge.FindsCleanAsync(_path);
        await WithImageAsync(passes, image => image.WriteAsync(1 << 20, Filled(100_000, 0x52)));
        Assert.Equal((start, end, length), (Place(1 << 20), Place(2 << 20), new FileInfo(_path).Length));
        Disk.QemuIo(_path, "read -P 0x52 1M 100000", "read -P 0 1148576 948576");
        await Judge.FindsCleanAsync(_path);

        async Task<long> FirstHoleAsync()
        {
            await using var file = LocalBlockFile.Open(_path, ImageAccess.Read);
            long at = start;
            while (at < end && file.GetExtent(at, end) is { IsData: true } extent)
                at += extent.Bytes;
            return at;
        }
    }

    [Fact]
    public async Task A_cluster_that_a_snapshot_has_is_given_up_and_the_snapshot_keeps_its_data()
    {
        Disk.Create(_path, DiskBytes, "compat=1.1");
        Disk.QemuIo(_path, "write -P 1 0 1M");
        Tool.Run("qemu-img", "snapshot", "-c", "one", _path);
        await WithImageAsync(passes: true, image => image.DiscardAsync(0, 1 << 20));
        Disk.QemuIo(_path, "read -P 0 0 1M");
        Tool.Run("qemu-img", "snapshot", "-a", "one", _path);
        Disk.QemuIo(_path, "read -P 1 0 1M");
        await Judge.FindsCleanAsync(_path);
    }

    [Fact]
    public async Task An_encrypted_cluster_keeps_its_space_too()
    {
        var disk = EncryptedDisk.Create(_path, "password", DiskBytes, "encrypt.format=luks");
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image image = await Qcow2Image.OpenAsync(_path, disk.Writing(65536) with { KeepDiscardedClusters = true });
            await image.WriteAsync(0, Filled(1 << 20, 0x51));
            await image.DiscardAsync(0, 1 << 20);
        });
        disk.QemuIo("read -P 0 0 1M");
        await disk.HoldsAsync(new byte[DiskBytes]);
    }

    [Theory]
    [InlineData(512, "")]
    [InlineData(16384, ",extended_l2=on")]
    [InlineData(65536, "")]
    public async Task Discards_and_writes_at_random_leave_a_sound_image_no_longer_than_its_disk(int clusterBytes, string options)
    {
        Disk.Create(_path, DiskBytes / 4, $"compat=1.1,cluster_size={clusterBytes}{options}");
        byte[] model = new byte[DiskBytes / 4];
        Qcow2OpenOptions opening = Disk.Writing(clusterBytes) with { KeepDiscardedClusters = true };
        for (int seed = 0; seed < 4; seed++)
            await Exclusive.Run(() => Disk.ScribbleAsync(_path, model, seed, opening, groups: 6, maxBytes: 200_000));
        Judge.ReadsAs(_path, model);
        await Judge.FindsCleanAsync(_path);
    }

    [Fact]
    public async Task Version_2_can_not_say_zero()
    {
        Disk.Create(_path, DiskBytes, "compat=0.10");
        Qcow2Exception e = await Assert.ThrowsAsync<Qcow2Exception>(() => WithImageAsync(passes: true, _ => ValueTask.CompletedTask));
        Assert.Equal("discard-no-unref is only supported since qcow2 version 3", e.Message);
    }

    private Task WithImageAsync(bool passes, Func<Qcow2Image, ValueTask> action) => Exclusive.Run(async () =>
    {
        await using Qcow2Image image = await Qcow2Image.OpenAsync(_path,
            Disk.Writing(65536) with { KeepDiscardedClusters = true, PassDiscard = passes });
        await action(image);
    });

    private static byte[] Filled(int bytes, byte value) => Enumerable.Repeat(value, bytes).ToArray();

    /// <summary>Where a byte of the disk lies in the file, says QEMU.</summary>
    private long Place(long offset)
    {
        using var map = JsonDocument.Parse(Tool.Run("qemu-img", "map", "--output=json", _path));
        foreach (JsonElement extent in map.RootElement.EnumerateArray())
        {
            long start = extent.GetProperty("start").GetInt64();
            if (offset >= start && offset < start + extent.GetProperty("length").GetInt64())
                return extent.GetProperty("offset").GetInt64() + offset - start;
        }
        throw new InvalidOperationException($"QEMU has no place for byte {offset}");
    }
}
