using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Data;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Interop.Tests;

/// <summary>Disks of many TiB: opening and writing them takes memory by what is used, not by what is promised.</summary>
[Collection(MeasuredMemory.Name)]
public sealed class LargeDiskTests
{
    private const long TiB = 1L << 40;

    [Theory]
    [InlineData(64, 65536)]
    [InlineData(64, 2 << 20)]
    [InlineData(1024, 65536)]
    public async Task A_disk_of_many_TiB_opens_in_little_memory(long sizeTiB, int clusterBytes)
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = directory.File("disk");
        Disk.Create(path, sizeTiB * TiB, $"cluster_size={clusterBytes}");
        // Once before, so that what the runtime allocates for itself does not count.
        await Exclusive.Run(async () => await (await Qcow2Image.OpenAsync(path, new Qcow2OpenOptions())).CloseAsync());
        await Exclusive.Run(async () =>
        {
            long before = GC.GetTotalAllocatedBytes();
            await using Qcow2Image image = await Qcow2Image.OpenAsync(path, new Qcow2OpenOptions { Access = ImageAccess.Write });
            byte[] sector = new byte[512];
            await image.WriteAsync((sizeTiB * TiB) - 512, sector);
            await image.ReadAsync(sizeTiB * TiB / 2, sector);
            await image.FlushAsync();
            long allocated = GC.GetTotalAllocatedBytes() - before;
            Assert.True(allocated < 64 << 20, $"{allocated >> 10} KiB were allocated");
        });
        await Judge.FindsCleanAsync(path);
    }

    [Theory]
    [InlineData("compat=1.1,cluster_size=64k")]
    [InlineData("compat=0.10,cluster_size=64k")]
    [InlineData("compat=1.1,cluster_size=2M,refcount_bits=64")]
    public async Task Sparse_writes_all_over_a_disk_of_many_TiB_are_found_again(string options)
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = directory.File("disk");
        const long bytes = (60 * TiB) + 1536;
        Disk.Create(path, bytes, options);
        long[] offsets = [0, (1L << 32) - 100, (1L << 32) + 200, (5 * TiB) - 7, (33 * TiB) + 12345, (59 * TiB) + 65530, bytes - 300];
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image image = await Qcow2Image.OpenAsync(path, Disk.Writing(65536));
            await Task.WhenAll(offsets.Select((offset, i) => image.WriteAsync(offset, Enumerable.Repeat((byte)(i + 1), 300).ToArray()).AsTask()));
            // Far over what is allocated: nothing to do, and done at once.
            await image.DiscardAsync(6 * TiB, 20 * TiB);
            await image.WriteZeroesAsync(34 * TiB, TiB, mayUnmap: true);
            Assert.Equal(DiskExtentState.Unallocated, (await image.GetExtentAsync(7 * TiB, 65536)).State);
        });
        await Judge.FindsCleanAsync(path);
        Disk.QemuIo(path, [.. offsets.Select((offset, i) => $"read -P {i + 1} {offset} 300"),
            $"read -P 0 {6 * TiB} 1M", $"read -P 0 {bytes - 65536} 65236"]);
        Assert.True(new FileInfo(path).Length < 128 << 20);
    }
}
