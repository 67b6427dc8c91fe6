using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Data;

namespace OrleansDisk.Interop.Tests;

/// <summary>Zero clusters that QEMU made, with and without a host cluster: no write ever brings old bytes back.</summary>
public sealed class ZeroClusterTests
{
    [Theory]
    [InlineData(512)]
    [InlineData(65536)]
    [InlineData(2 << 20)]
    public async Task A_write_into_part_of_a_zero_cluster_never_shows_the_stale_bytes_of_its_host_cluster(int clusterBytes)
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = directory.File("disk");
        byte[] model = new byte[6 * clusterBytes];
        Disk.Create(path, model.Length, $"cluster_size={clusterBytes}");
        Disk.QemuIo(path, $"write -P 0xaa 0 {model.Length}", $"write -z 0 {2 * clusterBytes}", $"write -z -u {2 * clusterBytes} {2 * clusterBytes}");
        model.AsSpan(4 * clusterBytes).Fill(0xaa);
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image image = await Qcow2Image.OpenAsync(path, Disk.Writing(clusterBytes));
            await new ModelDisk(image, model, seed: 0).VerifyAsync();
            Assert.Equal(DiskExtentState.ZeroAllocated, (await image.GetExtentAsync(0, clusterBytes)).State);
            Assert.Equal(DiskExtentState.Zero, (await image.GetExtentAsync(2L * clusterBytes, clusterBytes)).State);
            // The middle of each kind, and a range from one cluster into the next.
            foreach (int at in (int[])[100, clusterBytes - 30, (2 * clusterBytes) + 100, (3 * clusterBytes) - 30, (4 * clusterBytes) - 30])
            {
                model.AsSpan(at, 60).Fill(0x55);
                await image.WriteAsync(at, model.AsMemory(at, 60));
            }
            await new ModelDisk(image, model, seed: 0).VerifyAsync();
        });
        await Judge.FindsCleanAsync(path);
        Judge.ReadsAs(path, model);
    }

    [Theory]
    [InlineData(512, 1)]
    [InlineData(4096, 16)]
    [InlineData(65536, 64)]
    public async Task Random_writes_over_zero_clusters_of_both_kinds_keep_the_image_clean(int clusterBytes, int refcountBits)
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = directory.File("disk");
        byte[] model = new byte[(1 << 20) + 512];
        Disk.Create(path, model.Length, $"cluster_size={clusterBytes},refcount_bits={refcountBits}");
        Disk.QemuIo(path, "write -P 0xaa 0 1M", "write -z 0 256k", "write -z -u 256k 256k", "write -z 700k 100k");
        model.AsSpan(0, 1 << 20).Fill(0xaa);
        model.AsSpan(0, 512 << 10).Clear();
        model.AsSpan(700 << 10, 100 << 10).Clear();
        await Exclusive.Run(() => Disk.ScribbleAsync(path, model, seed: clusterBytes, Disk.Writing(clusterBytes), groups: 40, maxBytes: 60_000));
        await Judge.FindsCleanAsync(path);
        Judge.ReadsAs(path, model);
    }

    [Fact]
    public async Task Zeros_keep_or_give_up_the_host_cluster_as_asked()
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = directory.File("disk");
        Disk.Create(path, 4 * 65536, "cluster_size=64k");
        Disk.QemuIo(path, "write -P 0xaa 0 256k");
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image image = await Qcow2Image.OpenAsync(path, Disk.Writing(65536));
            long? host = (await image.GetExtentAsync(0, 65536)).HostOffset;
            await image.WriteZeroesAsync(0, 65536, mayUnmap: false);
            await image.WriteZeroesAsync(65536, 65536, mayUnmap: true);
            DiskExtent kept = await image.GetExtentAsync(0, 65536);
            Assert.Equal((DiskExtentState.ZeroAllocated, host), (kept.State, kept.HostOffset));
            Assert.Equal(DiskExtentState.Zero, (await image.GetExtentAsync(65536, 65536)).State);
            await image.WriteAsync(1000, new byte[] { 1 });
            Assert.Equal(host, (await image.GetExtentAsync(0, 65536)).HostOffset);
        });
        await Judge.FindsCleanAsync(path);
        Disk.QemuIo(path, "read -P 0 0 1000", "read -P 1 1000 1", "read -P 0 1001 130071", "read -P 0xaa 128k 128k");
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task Zeros_over_nothing_get_an_entry_only_when_all_are_to_be_noted(bool notesAll)
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = directory.File("disk");
        Disk.Create(path, 8 * 65536, "cluster_size=64k");
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image image = await Qcow2Image.OpenAsync(path, Disk.Writing(65536) with { NotesAllZeroes = notesAll });
            await image.WriteZeroesAsync(0, 65536, mayUnmap: false);
            await image.WriteZeroesAsync(65536 + 512, 1000, mayUnmap: true);
            await image.DiscardAsync(4 * 65536, 65536);
            DiskExtentState expected = notesAll ? DiskExtentState.Zero : DiskExtentState.Unallocated;
            DiskExtent zeroed = await image.GetExtentAsync(0, 8 * 65536);
            Assert.Equal((expected, notesAll ? 2 * 65536L : 8 * 65536), (zeroed.State, zeroed.Bytes));
            Assert.Equal(DiskExtentState.Unallocated, (await image.GetExtentAsync(4 * 65536, 65536)).State);
        });
        await Judge.FindsCleanAsync(path);
        Judge.ReadsAs(path, new byte[8 * 65536]);
    }

    [Fact]
    public async Task Zeros_in_a_part_of_a_cluster_take_no_space_when_the_rest_reads_as_zeros_below()
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = directory.File("disk");
        Disk.Create(directory.File("base"), 4 * 65536, "cluster_size=64k");
        Disk.QemuIo(directory.File("base"), "write -P 0xaa 70000 10", "write -P 0xaa 196608 65536");
        Disk.CreateOverlay(path, "base", "qcow2", 4 * 65536, "cluster_size=64k");
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image image = await Qcow2Image.OpenAsync(path, Disk.Writing(65536));
            await image.WriteZeroesAsync(1000, 3000, mayUnmap: false);
            await image.WriteZeroesAsync(65536 + 512, 60_000, mayUnmap: false);
            await image.WriteZeroesAsync((3 * 65536) + 512, 512, mayUnmap: false);
            Assert.Equal(DiskExtentState.Zero, (await image.GetExtentAsync(0, 65536)).State);
            Assert.Equal(DiskExtentState.Data, (await image.GetExtentAsync(65536, 65536)).State);
            Assert.Equal(DiskExtentState.Unallocated, (await image.GetExtentAsync(2 * 65536, 65536)).State);
            Assert.Equal(DiskExtentState.Data, (await image.GetExtentAsync(3 * 65536, 65536)).State);
        });
        await Judge.FindsCleanAsync(path);
        Disk.QemuIo(path, "read -P 0 0 192k", "read -P 0xaa 192k 512", "read -P 0 197120 512", "read -P 0xaa 197632 64512");
    }

    [Theory]
    [InlineData("metadata", 65536, 16)]
    [InlineData("falloc", 4096, 16)]
    [InlineData("full", 65536, 1)]
    [InlineData("metadata", 512, 64)]
    [InlineData("metadata", 2 << 20, 8)]
    public async Task Preallocated_images_read_as_zeros_and_take_random_writes(string preallocation, int clusterBytes, int refcountBits)
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = directory.File("disk");
        byte[] model = new byte[(3 << 20) + 512];
        Disk.Create(path, model.Length, $"preallocation={preallocation},cluster_size={clusterBytes},refcount_bits={refcountBits}");
        await Exclusive.Run(() => Disk.ScribbleAsync(path, model, seed: clusterBytes, Disk.Writing(clusterBytes), groups: 20, maxBytes: 100_000));
        await Judge.FindsCleanAsync(path);
        Judge.ReadsAs(path, model);
    }
}
