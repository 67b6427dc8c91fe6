using System.Buffers.Binary;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Check;
using OrleansDisk.Qcow2.Check.Repair;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Interop.Tests;

/// <summary>Images become others by their headers, tables and refcounts; QEMU judges what they are then.</summary>
public sealed class AmendTests
{
    [Theory]
    [InlineData(512, false)]
    [InlineData(512, true)]
    [InlineData(65536, false)]
    [InlineData(65536, true)]
    public async Task An_image_of_version_3_becomes_one_of_version_2_and_back_with_zeros_in_snapshots(int clusterBytes, bool hasBacking)
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = directory.File("disk");
        string backing = directory.File("backing");
        File.WriteAllBytes(backing, Disk.MixedBytes(1 << 20, seed: 2));
        if (hasBacking)
            Disk.CreateOverlay(path, backing, "raw", 4 << 20, $"compat=1.1,lazy_refcounts=on,cluster_size={clusterBytes}");
        else
            Disk.Create(path, 4 << 20, $"compat=1.1,lazy_refcounts=on,cluster_size={clusterBytes}");
        Disk.QemuIo(path, "write -P 1 0 3M", "write -z 128k 128k", "write -z -u 256k 128k", "write -z -u 900k 300k");
        Tool.Run("qemu-img", "snapshot", "-c", "one", path);
        Disk.QemuIo(path, "write -P 2 64k 128k", "write -z 1M 64k", "write -z -u 3M 512k", "write -P 3 3200k 64k");
        byte[] disk = await ReadAsync(path);
        Tool.Run("qemu-img", "snapshot", "-c", "two", path);
        await AmendAsync(path, new AmendOptions { Version = 2 });
        Assert.Equal((2, 72), await VersionAsync(path));
        await Judge.FindsCleanAsync(path);
        Judge.ReadsAs(path, disk);
        Tool.Run("qemu-img", "snapshot", "-a", "one", path);
        Disk.QemuIo(path, "read -P 1 0 128k", "read -P 0 128k 256k", "read -P 1 384k 512k", "read -P 0 900k 300k", "read -P 1 1200k 1800k");
        Tool.Run("qemu-img", "snapshot", "-a", "two", path);
        await AmendAsync(path, new AmendOptions { Version = 3, LazyRefcounts = true });
        Assert.Equal((3, 112), await VersionAsync(path));
        await Judge.FindsCleanAsync(path);
        Judge.ReadsAs(path, disk);
    }

    [Fact]
    public async Task Snapshots_that_do_not_say_how_large_their_disk_was_say_it_in_version_3()
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = directory.File("disk");
        Disk.Create(path, 4 << 20, "compat=0.10");
        Disk.QemuIo(path, "write -P 1 0 1M");
        Tool.Run("qemu-img", "snapshot", "-c", "old", path);
        Disk.QemuIo(path, "write -P 2 512k 1M");
        byte[] disk = await ReadAsync(path);
        byte[] image = await File.ReadAllBytesAsync(path);
        // As old programs wrote it: no extra data between the fields and the strings.
        int entry = (int)BinaryPrimitives.ReadUInt64BigEndian(image.AsSpan(64));
        int extraBytes = (int)BinaryPrimitives.ReadUInt32BigEndian(image.AsSpan(entry + 36));
        image.AsSpan(entry + 40 + extraBytes, 16).CopyTo(image.AsSpan(entry + 40));
        BinaryPrimitives.WriteUInt32BigEndian(image.AsSpan(entry + 36), 0);
        await File.WriteAllBytesAsync(path, image);

        await AmendAsync(path, new AmendOptions { Version = 3 });
        Assert.Equal((3, 112), await VersionAsync(path));
        await Judge.FindsCleanAsync(path);
        Judge.ReadsAs(path, disk);
        Tool.Run("qemu-img", "snapshot", "-a", "old", path);
        Disk.QemuIo(path, "read -P 1 0 1M", "read -P 0 1M 3M");
    }

    [Fact]
    public async Task A_repair_clears_autoclear_bits_that_nobody_knows()
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = directory.File("disk");
        Disk.Create(path, 1 << 20, "compat=1.1");
        byte[] image = await File.ReadAllBytesAsync(path);
        BinaryPrimitives.WriteUInt64BigEndian(image.AsSpan(88), 1UL << 63);
        await File.WriteAllBytesAsync(path, image);
        await using (var file = LocalBlockFile.Open(path, ImageAccess.Write))
            await ImageRepair.RunAsync(file, RepairKinds.All, new CheckOptions());
        image = await File.ReadAllBytesAsync(path);
        Assert.Equal(0UL, BinaryPrimitives.ReadUInt64BigEndian(image.AsSpan(88)));
        await Judge.FindsCleanAsync(path);
    }

    [Theory]
    [InlineData(512)]
    [InlineData(4096)]
    [InlineData(65536)]
    public async Task Refcounts_get_every_width_one_after_the_other(int clusterBytes)
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = directory.File("disk");
        byte[] model = Disk.MixedBytes(6 << 20, seed: clusterBytes);
        Disk.Create(path, model.Length, $"cluster_size={clusterBytes}");
        await Disk.OnImageAsync(path, clusterBytes, async image =>
        {
            await image.WriteAsync(0, model);
        });
        foreach (int bits in (int[])[1, 64, 2, 32, 4, 8, 16])
        {
            await AmendAsync(path, new AmendOptions { RefcountBits = bits });
            await using (var file = LocalBlockFile.Open(path, ImageAccess.Read))
                Assert.Equal(bits, (await HeaderReader.ReadAsync(file)).Geometry.RefcountBits);
            await Judge.FindsCleanAsync(path);
            await Exclusive.Run(() => Disk.ScribbleAsync(path, model, seed: bits, Disk.Writing(clusterBytes), groups: 3, maxBytes: 100_000));
            await Judge.FindsCleanAsync(path);
        }
        Judge.ReadsAs(path, model);
    }

    [Fact]
    public async Task A_refcount_that_does_not_fit_stops_the_change_before_it_begins()
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = directory.File("disk");
        Disk.Create(path, 1 << 20, "cluster_size=65536");
        Disk.QemuIo(path, "write -P 1 0 64k");
        Tool.Run("qemu-img", "snapshot", "-c", "one", path);
        byte[] before = File.ReadAllBytes(path);
        Qcow2Exception e = await Assert.ThrowsAsync<Qcow2Exception>(() => AmendAsync(path, new AmendOptions { RefcountBits = 1 }));
        Assert.Equal("Cannot decrease refcount entry width to 1 bits: Cluster at offset 0x40000 has a refcount of 2", e.Message);
        Assert.Equal(before, File.ReadAllBytes(path));
    }

    [Fact]
    public async Task What_can_not_be_had_is_refused_and_changes_nothing()
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = directory.File("disk");
        Disk.Create(path, 1 << 20, "compat=1.1,refcount_bits=64");
        byte[] before = File.ReadAllBytes(path);
        foreach ((AmendOptions options, string message) in ((AmendOptions, string)[])
        [
            (new() { Version = 2 }, "compat=0.10 requires refcount_bits=16"),
            (new() { RefcountBits = 3 }, "Refcount width must be a power of two and may not exceed 64 bits"),
            (new() { Version = 2, RefcountBits = 8 }, "Refcount widths other than 16 bits require compatibility level 1.1 or above (use compat=1.1 or greater)"),
            (new() { BackingFile = "other" }, "Cannot amend the backing file\nYou can use 'qemu-img rebase' instead."),
            (new() { DataFile = "other" }, "data-file can only be set for images that use an external data file"),
            (new() { DataFileRaw = true }, "data-file-raw cannot be set on existing images"),
            (new() { Version = 2, RefcountBits = 16, LazyRefcounts = true }, "Lazy refcounts only supported with compatibility level 1.1 and above (use compat=1.1 or greater)"),
        ])
        {
            Exception? e = await Record.ExceptionAsync(() => AmendAsync(path, options));
            Assert.Equal(message, e?.Message);
        }
        Assert.Equal(before, File.ReadAllBytes(path));
        await Judge.FindsCleanAsync(path);
    }

    private static Task AmendAsync(string path, AmendOptions options, bool openBacking = true) => Exclusive.Run(() => AmendOperation.RunAsync(
        () => Qcow2Image.OpenAsync(path, new Qcow2OpenOptions { Access = ImageAccess.Write, OpenBacking = openBacking }), options));

    private static async Task<(int Version, int HeaderBytes)> VersionAsync(string path)
    {
        await using var file = LocalBlockFile.Open(path, ImageAccess.Read);
        Header header = await HeaderReader.ReadAsync(file);
        return (header.Version, header.HeaderBytes);
    }

    private static async Task<byte[]> ReadAsync(string path)
    {
        byte[] disk = [];
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image image = await Qcow2Image.OpenAsync(path, new Qcow2OpenOptions());
            disk = new byte[image.VirtualBytes];
            await image.ReadAsync(0, disk);
        });
        return disk;
    }
}
