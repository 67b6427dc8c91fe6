using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Data;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Interop.Tests;

/// <summary>Images with extended L2 entries: whoever made them, this engine and QEMU read and write each other's.</summary>
public sealed class SubclusterTests
{
    private const int ClusterBytes = 64 << 10;
    private const int SubclusterBytes = ClusterBytes / 32;

    [Theory]
    [InlineData(16 << 10, "off")]
    [InlineData(64 << 10, "off")]
    [InlineData(64 << 10, "metadata")]
    [InlineData(256 << 10, "falloc")]
    [InlineData(2 << 20, "off")]
    public async Task Random_writes_leave_an_image_that_qemu_finds_clean_and_equal(int clusterBytes, string preallocation)
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = directory.File("disk");
        byte[] model = new byte[Math.Clamp(clusterBytes * 40, 1 << 20, 12 << 20) + 1536];
        Disk.Create(path, model.Length, $"extended_l2=on,cluster_size={clusterBytes},preallocation={preallocation}");
        await Exclusive.Run(() => Disk.ScribbleAsync(path, model, seed: clusterBytes, Disk.Writing(clusterBytes), groups: 60, maxBytes: clusterBytes * 4));
        await Judge.FindsCleanAsync(path);
        Judge.ReadsAs(path, model);
        // And QEMU goes on where we stopped.
        Disk.QemuIo(path, "write -P 0x77 1000 70000", "write -z 300k 40k", "discard 128k 512k");
        model.AsSpan(1000, 70_000).Fill(0x77);
        await Judge.FindsCleanAsync(path);
    }

    [Theory]
    [InlineData("qcow2")]
    [InlineData("raw")]
    public async Task Random_writes_over_a_backing_file_copy_subclusters(string backingFormat)
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        byte[] below = Disk.MixedBytes((3 << 20) + 700, seed: 5);
        File.WriteAllBytes(directory.File("below.raw"), below);
        if (backingFormat == "qcow2")
            Tool.Run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", directory.File("below.raw"), directory.File("below.qcow2"));
        string path = directory.File("disk");
        byte[] model = new byte[(4 << 20) + 512];
        below.CopyTo(model, 0);
        Disk.CreateOverlay(path, $"below.{backingFormat}", backingFormat, model.Length, "extended_l2=on");
        await Exclusive.Run(() => Disk.ScribbleAsync(path, model, seed: 9, Disk.Writing(ClusterBytes), groups: 60, maxBytes: 200_000));
        await Judge.FindsCleanAsync(path);
        Judge.ReadsAs(path, model);
    }

    [Fact]
    public async Task Random_writes_keep_a_snapshot_and_images_with_compressed_clusters()
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        byte[] model = Disk.MixedBytes(4 << 20, seed: 3);
        File.WriteAllBytes(directory.File("raw"), model);
        string path = directory.File("disk");
        Tool.Run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", "extended_l2=on", directory.File("raw"), path);
        Disk.QemuIo(path, "write -P 0x11 100k 9k", "write -z 300k 20k", "write -P 0x22 1M 100k");
        model.AsSpan(100 << 10, 9 << 10).Fill(0x11);
        model.AsSpan(300 << 10, 20 << 10).Clear();
        model.AsSpan(1 << 20, 100 << 10).Fill(0x22);
        byte[] before = [.. model];
        Tool.Run("qemu-img", "snapshot", "-c", "kept", path);
        await Exclusive.Run(() => Disk.ScribbleAsync(path, model, seed: 4, Disk.Writing(ClusterBytes), groups: 60, maxBytes: 150_000));
        await Judge.FindsCleanAsync(path);
        Judge.ReadsAs(path, model);
        Assert.True(Judge.ReadSnapshot(path, "kept").AsSpan().SequenceEqual(before));
    }

    [Fact]
    public async Task A_small_write_allocates_the_subclusters_that_it_touches_and_no_more()
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        File.WriteAllBytes(directory.File("below"), [.. Enumerable.Repeat((byte)0xbb, 4 * ClusterBytes)]);
        string path = directory.File("disk");
        Disk.CreateOverlay(path, "below", "raw", 4 * ClusterBytes, "extended_l2=on");
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image image = await Qcow2Image.OpenAsync(path, Disk.Writing(ClusterBytes));
            await image.WriteAsync((3 * SubclusterBytes) + 100, new byte[SubclusterBytes]);
            Assert.Equal((3 * SubclusterBytes, DiskExtentState.Unallocated), await ExtentAsync(image, 0));
            Assert.Equal((2 * SubclusterBytes, DiskExtentState.Data), await ExtentAsync(image, 3 * SubclusterBytes));
            Assert.Equal((ClusterBytes - (5 * SubclusterBytes), DiskExtentState.Unallocated), await ExtentAsync(image, 5 * SubclusterBytes, ClusterBytes));

            await image.WriteZeroesAsync(4 * SubclusterBytes, 2 * SubclusterBytes, mayUnmap: false);
            Assert.Equal((SubclusterBytes, DiskExtentState.Data), await ExtentAsync(image, 3 * SubclusterBytes));
            Assert.Equal((2 * SubclusterBytes, DiskExtentState.ZeroAllocated), await ExtentAsync(image, 4 * SubclusterBytes));
            Assert.Equal((26 * SubclusterBytes, DiskExtentState.Unallocated), await ExtentAsync(image, 6 * SubclusterBytes, ClusterBytes));
        });
        await Judge.FindsCleanAsync(path);
        Disk.QemuIo(path, $"read -P 0xbb 0 {(3 * SubclusterBytes) + 100}", $"read -P 0 {(3 * SubclusterBytes) + 100} {(3 * SubclusterBytes) - 100}",
            $"read -P 0xbb {6 * SubclusterBytes} {ClusterBytes}");
    }

    [Fact]
    public async Task Zeros_that_may_unmap_give_a_cluster_up_when_its_last_data_goes()
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = directory.File("disk");
        Disk.Create(path, 2 * ClusterBytes, "extended_l2=on");
        Disk.QemuIo(path, "write -P 0xaa 4k 8k");
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image image = await Qcow2Image.OpenAsync(path, Disk.Writing(ClusterBytes));
            await image.WriteZeroesAsync(4 << 10, 6 << 10, mayUnmap: true);
            Assert.NotNull((await image.GetExtentAsync(10 << 10, 2 << 10)).HostOffset);
            await image.WriteZeroesAsync(10 << 10, 2 << 10, mayUnmap: true);
            Assert.Null((await image.GetExtentAsync(10 << 10, 2 << 10)).HostOffset);
        });
        await Judge.FindsCleanAsync(path);
        Disk.QemuIo(path, "read -P 0 0 128k");
    }

    [Fact]
    public async Task A_write_beside_zero_subclusters_never_shows_the_stale_bytes_of_their_cluster()
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = directory.File("disk");
        byte[] model = new byte[2 * ClusterBytes];
        Disk.Create(path, model.Length, "extended_l2=on");
        Disk.QemuIo(path, "write -P 0xaa 0 128k", "write -z 8k 8k", "write -z 64k 64k");
        model.AsSpan().Fill(0xaa);
        model.AsSpan(8 << 10, 8 << 10).Clear();
        model.AsSpan(64 << 10).Clear();
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image image = await Qcow2Image.OpenAsync(path, Disk.Writing(ClusterBytes));
            foreach (int at in (int[])[(8 << 10) - 30, (10 << 10) + 100, (16 << 10) - 30, (64 << 10) - 30, (100 << 10) + 1])
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
    [InlineData("write -P 1 0 64k", 0, "ff", "Invalid cluster entry found")] // the first subcluster is allocated, and zero
    [InlineData("write -P 1 0 64k", 7, "00", null)] // no subcluster is allocated: nothing wrong
    public async Task A_bitmap_that_contradicts_itself_is_damage_when_it_is_met(string command, int zeroByte, string bits, string? message)
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = directory.File("disk");
        Disk.Create(path, 4 * ClusterBytes, "extended_l2=on");
        Disk.QemuIo(path, command);
        await Patch(path, bitmap => bitmap[zeroByte] = Convert.ToByte(bits, 16));
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image image = await Qcow2Image.OpenAsync(path, new Qcow2OpenOptions());
            if (message is null)
                await image.ReadAsync(0, new byte[512]);
            else
                Assert.Contains(message, (await Assert.ThrowsAnyAsync<Qcow2Exception>(() => image.ReadAsync(0, new byte[512]).AsTask())).Message, StringComparison.Ordinal);
        });
        Assert.Equal(message is null ? 0 : 2, Tool.Try("qemu-img", "check", path).ExitCode);
    }

    [Theory]
    [InlineData(16 << 10, Preallocation.Off)]
    [InlineData(64 << 10, Preallocation.Off)]
    [InlineData(64 << 10, Preallocation.Metadata)]
    [InlineData(2 << 20, Preallocation.Metadata)]
    public async Task Created_images_are_those_of_qemu_byte_for_byte_and_qemu_writes_them(int clusterBytes, Preallocation preallocation)
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        (string ours, string theirs) = (directory.File("ours"), directory.File("theirs"));
        await CreateOperation.CreateAsync(ours, new CreateOptions
        {
            VirtualBytes = 6 << 20,
            ClusterBytes = clusterBytes,
            ExtendedL2 = true,
            Preallocation = preallocation,
        });
        Disk.Create(theirs, 6 << 20, $"extended_l2=on,cluster_size={clusterBytes},preallocation={(preallocation == Preallocation.Off ? "off" : "metadata")}");
        Assert.Equal(Judge.Fingerprint(theirs), Judge.Fingerprint(ours));
        Disk.QemuIo(ours, "write -P 0x31 100k 200k", "read -P 0x31 100k 200k");
        await Judge.FindsCleanAsync(ours);
    }

    [Fact]
    public async Task A_lease_reads_and_overwrites_allocated_subclusters_and_leaves_the_rest_to_turns()
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = directory.File("disk");
        File.WriteAllBytes(directory.File("below"), new byte[4 * ClusterBytes]);
        Disk.CreateOverlay(path, "below", "raw", 4 * ClusterBytes, "extended_l2=on");
        Disk.QemuIo(path, "write -P 0xaa 4k 8k", "write -z 12k 4k");
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image image = await Qcow2Image.OpenAsync(path, Disk.Writing(ClusterBytes));
            byte[] read = new byte[12 << 10];
            await image.ReadAsync(4 << 10, read.AsMemory(0, 512)); // the table is in the cache now
            await image.WriteAsync(4 << 10, new byte[] { 1 }); // and where it leads was looked at
            using MappingLease lease = image.Lease();
            Assert.True(lease.TryRead(4 << 10, read));
            Assert.Equal([1, .. Enumerable.Repeat((byte)0xaa, (8 << 10) - 1), .. new byte[4 << 10]], read);
            Assert.False(lease.TryRead(4 << 10, read, mustBeData: true));
            Assert.False(lease.TryRead(3 << 10, read)); // begins in the backing file
            Assert.True(lease.TryWrite(5000, [2, 3]));
            Assert.False(lease.TryWrite((12 << 10) - 1, [4, 5])); // ends in zeros
            await image.ReadAsync(5000, read.AsMemory(0, 2));
            Assert.Equal([2, 3], read[..2]);
        });
        await Judge.FindsCleanAsync(path);
    }

    private static async Task<(int Bytes, DiskExtentState State)> ExtentAsync(Qcow2Image image, int offset, int end = 4 * ClusterBytes)
    {
        DiskExtent extent = await image.GetExtentAsync(offset, end - offset);
        return ((int)extent.Bytes, extent.State);
    }

    /// <summary>Changes the bitmap of the first guest cluster.</summary>
    private static async Task Patch(string path, Action<byte[]> change)
    {
        Header header;
        await using (var file = LocalBlockFile.Open(path, ImageAccess.Read))
            header = await HeaderReader.ReadAsync(file);
        byte[] bytes = File.ReadAllBytes(path);
        int l2 = (int)new L1Entry(System.Buffers.Binary.BinaryPrimitives.ReadUInt64BigEndian(bytes.AsSpan((int)header.L1Table.Bytes))).L2Table.Bytes;
        byte[] bitmap = bytes[(l2 + 8)..(l2 + 16)];
        change(bitmap);
        bitmap.CopyTo(bytes, l2 + 8);
        File.WriteAllBytes(path, bytes);
    }
}
