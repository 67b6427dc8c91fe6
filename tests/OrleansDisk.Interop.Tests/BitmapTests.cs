using System.Buffers.Binary;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Bitmaps;
using OrleansDisk.Qcow2.Data;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Interop.Tests;

/// <summary>Persistent dirty bitmaps: no change without its bit, and what each side leaves, the other goes on with.</summary>
public sealed class BitmapTests : IDisposable
{
    private const int ClusterBytes = 64 << 10;
    private const int Granularity = 4 << 10;
    private const long DiskBytes = 40 << 20;
    private readonly TemporaryDirectory _directory = new(inMemory: true);

    private string Path => _directory.File("disk");

    public void Dispose() => _directory.Dispose();

    [Fact]
    public async Task Every_kind_of_change_sets_its_bits_and_QEMU_finds_them()
    {
        Disk.Create(Path, DiskBytes, "compat=1.1");
        Tool.Run("qemu-img", "bitmap", "--add", "-g", "4k", Path, "changes");
        await WritingAsync(async image =>
        {
            await image.WriteAsync(ClusterBytes + 100, new byte[200]);
            await image.WriteZeroesAsync(1 << 20, 8192, mayUnmap: false);
            await image.DiscardAsync(4 << 20, 2 * ClusterBytes);
            await image.WriteCompressedAsync(8 << 20, new byte[ClusterBytes]);
            await image.WriteAsync(DiskBytes - 512, new byte[512]);
        });
        List<(long Start, long Bytes)> expected =
        [
            (ClusterBytes, Granularity), (1 << 20, 8192), (4 << 20, 2 * ClusterBytes), (8 << 20, ClusterBytes), (DiskBytes - Granularity, Granularity),
        ];
        Assert.Equal(expected, QemuDirtyRanges("changes"));
        Assert.Equal(expected, await DirtyRangesAsync("changes"));
        await Judge.FindsCleanAsync(Path);
    }

    [Fact]
    public async Task A_full_disk_at_the_close_costs_the_bitmaps_alone_and_the_error_says_so()
    {
        const int noSpace = 28;
        Disk.Create(Path, DiskBytes, "compat=1.1");
        Tool.Run("qemu-img", "bitmap", "--add", Path, "changes");
        Disk.QemuIo(Path, "write -P 1 0 1M");
        var file = MemoryFile.Load(File.ReadAllBytes(Path), new MemoryFile());
        long length = file.LengthBytes;
        await Exclusive.Run(async () =>
        {
            Qcow2Image image = await Qcow2Image.OpenAsync(file, Disk.Writing(ClusterBytes));
            await image.WriteAsync(1000, Enumerable.Repeat((byte)2, 70_000).ToArray());
            file.Fault = (operation, offset) => operation == FileOperation.Write && offset >= length ? noSpace : 0;
            NoSpaceException error = await Assert.ThrowsAsync<NoSpaceException>(image.CloseAsync);
            Assert.StartsWith("The dirty bitmaps of 'memory' could not be stored: ", error.Message, StringComparison.Ordinal);
            Assert.Contains("make room, remove them", error.Message, StringComparison.Ordinal);
        });
        File.WriteAllBytes(Path, file.ToArray());
        Disk.QemuIo(Path, "read -P 1 0 1000", "read -P 2 1000 70000", "read -P 1 71000 977576");
        Assert.Contains("in-use", Tool.Run("qemu-img", "info", Path), StringComparison.Ordinal);
        await Judge.FindsCleanAsync(Path);
        Tool.Run("qemu-img", "bitmap", "--remove", Path, "changes");
        await WritingAsync(image => image.AddBitmapAsync("changes"));
        await Judge.FindsCleanAsync(Path);
    }

    [Fact]
    public async Task A_session_under_its_lease_sets_bits_and_allocates_nothing_for_it()
    {
        Disk.Create(Path, DiskBytes, "compat=1.1");
        await WritingAsync(async image =>
        {
            await image.AddBitmapAsync("changes", Granularity);
            await image.WriteAsync(0, new byte[4 * ClusterBytes]);
            await image.ClearBitmapAsync("changes");
            using MappingLease lease = image.Lease();
            byte[] data = new byte[512];
            Assert.True(lease.TryWrite(ClusterBytes, data));
            long before = GC.GetAllocatedBytesForCurrentThread();
            for (int i = 1; i < 100; i++)
                Assert.True(lease.TryWrite(ClusterBytes + (i * 512), data));
            Assert.Equal(0, GC.GetAllocatedBytesForCurrentThread() - before);
            Assert.Equal(new BitmapExtent(13 * Granularity, IsDirty: true), await image.GetBitmapExtentAsync("changes", ClusterBytes, ClusterBytes));

            await image.DisableBitmapAsync("changes");
            await image.WriteAsync(2 * ClusterBytes, data);
            Assert.True(lease.TryWrite(2 * ClusterBytes, data));
        });
        Assert.Equal([(ClusterBytes, 13 * Granularity)], QemuDirtyRanges("changes"));
        await Judge.FindsCleanAsync(Path);
    }

    [Fact]
    public async Task Sessions_on_many_threads_and_turns_lose_no_bit()
    {
        Disk.Create(Path, DiskBytes, "compat=1.1");
        const int sessions = 4;
        int refused = 0;
        await WritingAsync(async image =>
        {
            await image.AddBitmapAsync("changes", 512);
            await image.WriteAsync(0, new byte[16 << 20]);
            await image.ClearBitmapAsync("changes");
            MappingLease[] leases = [.. Enumerable.Range(0, sessions).Select(_ => image.Lease())];
            Thread[] threads = [.. Enumerable.Range(0, sessions).Select(session => new Thread(() =>
            {
                // Every other sector, a session its own of them: bits of one word come from all threads.
                for (int sector = 0; sector < 4096; sector++)
                {
                    if (!leases[session].TryWrite(((sector * sessions) + session) * 1024L, new byte[512]))
                        Interlocked.Increment(ref refused);
                }
            }))];
            Array.ForEach(threads, thread => thread.Start());
            for (int i = 0; i < 20; i++)
            {
                await image.WriteAsync((30 << 20) + (i * 1024), new byte[512]);
                await image.GetBitmapExtentAsync("changes", 0, DiskBytes);
            }
            Array.ForEach(threads, thread => thread.Join());
            Array.ForEach(leases, lease => lease.Dispose());
        });
        Assert.Equal(0, refused);
        IEnumerable<(long, long)> expected = Enumerable.Range(0, 4096 * sessions).Select(i => (i * 1024L, 512L))
            .Concat(Enumerable.Range(0, 20).Select(i => ((30L << 20) + (i * 1024), 512L)));
        Assert.Equal(expected, await DirtyRangesAsync("changes"));
        await Judge.FindsCleanAsync(Path);
    }

    [Fact]
    public async Task Bitmaps_are_added_merged_cleared_disabled_and_removed_and_QEMU_agrees()
    {
        Disk.Create(Path, DiskBytes, "compat=1.1");
        await WritingAsync(async image =>
        {
            await image.AddBitmapAsync("fine", 512);
            await image.AddBitmapAsync("coarse");
            await image.WriteAsync(1 << 20, new byte[1000]);
            await image.AddBitmapAsync("sum", 1 << 20, isEnabled: false);
            await image.MergeBitmapAsync("sum", "fine");
            await image.MergeBitmapAsync("coarse", "sum");
            await image.ClearBitmapAsync("fine");
            await image.WriteAsync(20 << 20, new byte[512]);
            await image.DisableBitmapAsync("fine");
            await image.WriteAsync(30 << 20, new byte[512]);
            await image.EnableBitmapAsync("fine");
            await image.WriteAsync(DiskBytes - 512, new byte[512]);
            await image.AddBitmapAsync("gone");
            await image.RemoveBitmapAsync("gone");
        });
        Assert.Equal([(20 << 20, 512), (DiskBytes - 512, 512)], QemuDirtyRanges("fine"));
        Assert.Equal([(1 << 20, 1 << 20)], QemuDirtyRanges("sum"));
        Assert.Equal([(1 << 20, 1 << 20), (20 << 20, 64 << 10), (30 << 20, 64 << 10), (DiskBytes - (64 << 10), 64 << 10)], QemuDirtyRanges("coarse"));
        await Judge.FindsCleanAsync(Path);
        await WritingAsync(async image =>
        {
            foreach (BitmapDescription bitmap in await image.ListBitmapsAsync())
                await image.RemoveBitmapAsync(bitmap.Name);
        });
        await Judge.FindsCleanAsync(Path);
        Assert.DoesNotContain("bitmaps", Tool.Run("qemu-img", "info", Path), StringComparison.Ordinal);
    }

    [Fact]
    public async Task Both_programs_add_bits_to_one_bitmap_in_turns()
    {
        Disk.Create(Path, 1L << 40, "compat=1.1,cluster_size=4k");
        Tool.Run("qemu-img", "bitmap", "--add", "-g", "64k", Path, "changes");
        var expected = new List<(long, long)>();
        for (int round = 0; round < 4; round++)
        {
            // Pages of a cluster cover 2 GiB each: some are new, some are read and written again.
            long ours = (round % 2 * (3L << 30)) + (round * (1 << 20));
            await WritingAsync(image => image.WriteAsync(ours, new byte[512]).AsTask());
            long theirs = (round % 2 * (3L << 30)) + (100 << 20) + (round * (1 << 20));
            Disk.QemuIo(Path, $"write {theirs} 512");
            expected.AddRange([(ours, 64 << 10), (theirs, 64 << 10)]);
        }
        expected.Sort();
        Assert.Equal(expected, QemuDirtyRanges("changes"));
        Assert.Equal(expected, await DirtyRangesAsync("changes"));
        await Judge.FindsCleanAsync(Path);
    }

    [Fact]
    public async Task What_is_dirty_all_over_takes_no_cluster_for_its_bits()
    {
        Disk.Create(Path, 4L << 40, "compat=1.1");
        await WritingAsync(async image =>
        {
            await image.AddBitmapAsync("changes");
            await image.DiscardAsync(0, image.VirtualBytes);
        });
        Assert.True(new FileInfo(Path).Length < 2 << 20, $"the file has {new FileInfo(Path).Length} bytes");
        Assert.Equal([(0, 4L << 40)], QemuDirtyRanges("changes"));
        await WritingAsync(image => image.ClearBitmapAsync("changes"));
        Assert.Empty(QemuDirtyRanges("changes"));
        await Judge.FindsCleanAsync(Path);
    }

    [Fact]
    public async Task A_bitmap_follows_the_size_of_the_disk_and_what_is_new_is_clean()
    {
        Disk.Create(Path, 1 << 20, "compat=1.1,cluster_size=512");
        await WritingAsync(async image =>
        {
            await image.AddBitmapAsync("enabled", 512);
            await image.AddBitmapAsync("disabled", 512, isEnabled: false);
            await image.WriteAsync((1 << 20) - 512, new byte[512]);
            await image.MergeBitmapAsync("disabled", "enabled");
            await image.ResizeAsync(9 << 20);
            await image.WriteAsync((9 << 20) - 512, new byte[512]);
        });
        Assert.Equal([((1 << 20) - 512, 512), ((9 << 20) - 512, 512)], QemuDirtyRanges("enabled"));
        Assert.Equal([((1 << 20) - 512, 512)], QemuDirtyRanges("disabled"));
        await Judge.FindsCleanAsync(Path);
    }

    [Fact]
    public async Task A_process_that_dies_leaves_enabled_bitmaps_inconsistent_and_the_others_as_they_were()
    {
        Disk.Create(Path, DiskBytes, "compat=1.1");
        string copy = _directory.File("copy");
        await WritingAsync(async image =>
        {
            await image.AddBitmapAsync("enabled");
            await image.WriteAsync(0, new byte[512]);
            await image.AddBitmapAsync("disabled", Granularity, isEnabled: false);
            await image.MergeBitmapAsync("disabled", "enabled");
            await image.WriteAsync(10 << 20, new byte[512]);
            await image.FlushAsync();
            File.Copy(Path, copy);
        });
        File.Move(copy, Path, overwrite: true);
        await Judge.FindsAtMostLeaksAsync(Path);
        await WritingAsync(async image =>
        {
            IReadOnlyList<BitmapDescription> bitmaps = await image.ListBitmapsAsync();
            Assert.Equal([("enabled", true), ("disabled", false)], bitmaps.Select(bitmap => (bitmap.Name, bitmap.IsInconsistent)));
            foreach (Func<Task> change in (Func<Task>[])[() => image.ClearBitmapAsync("enabled"), () => image.EnableBitmapAsync("enabled"),
                () => image.DisableBitmapAsync("enabled"), () => image.MergeBitmapAsync("disabled", "enabled"), () => image.MergeBitmapAsync("enabled", "disabled"),
                () => image.ResizeAsync(DiskBytes + 512)])
            {
                Qcow2Exception refused = await Assert.ThrowsAsync<BitmapException>(change);
                Assert.StartsWith("Bitmap 'enabled' is inconsistent and cannot be used", refused.Message, StringComparison.Ordinal);
            }
        });
        Assert.Contains("in-use", Tool.Run("qemu-img", "info", Path), StringComparison.Ordinal);
        Assert.Equal([(0, 64 << 10)], QemuDirtyRanges("disabled"));
        await WritingAsync(image => image.RemoveBitmapAsync("enabled"));
        await Judge.FindsAtMostLeaksAsync(Path);
    }

    [Fact]
    public async Task Bitmaps_that_a_foreign_program_made_stale_are_ignored_and_dropped_by_the_next_writer()
    {
        Disk.Create(Path, DiskBytes, "compat=1.1");
        Tool.Run("qemu-img", "bitmap", "--add", Path, "stale");
        using (FileStream file = File.OpenWrite(Path))
        {
            file.Position = 88; // autoclear_features
            file.Write(new byte[sizeof(ulong)]);
        }
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image image = await Qcow2Image.OpenAsync(Path, new Qcow2OpenOptions());
            Assert.Empty(await image.ListBitmapsAsync());
        });
        await WritingAsync(image => image.WriteAsync(0, new byte[512]).AsTask());
        await using (var file = LocalBlockFile.Open(Path, ImageAccess.Read))
            Assert.Null((await HeaderReader.ReadAsync(file)).Find(HeaderExtensionType.Bitmaps));
        await Judge.FindsAtMostLeaksAsync(Path);
        Tool.Run("qemu-img", "bitmap", "--add", Path, "stale");
    }

    [Fact]
    public async Task What_can_not_be_is_refused_in_QEMUs_words()
    {
        Disk.Create(Path, DiskBytes, "compat=1.1");
        await WritingAsync(async image =>
        {
            await image.AddBitmapAsync("one");
            await Refuses("Bitmap already exists: one", () => image.AddBitmapAsync("one"));
            await Refuses("Bitmap name cannot be empty", () => image.AddBitmapAsync(""));
            await Refuses("Granularity must be power of 2 and at least 512", () => image.AddBitmapAsync("two", 1000));
            await Refuses("Name length exceeds maximum (1023 characters)", () => image.AddBitmapAsync(new string('n', 1024)));
            await Refuses("Granularity exceeds maximum (2147483648 bytes)", () => image.AddBitmapAsync("two", 4L << 30));
            await Refuses("Dirty bitmap 'two' not found", () => image.RemoveBitmapAsync("two"));
        });
        string large = _directory.File("large");
        Disk.Create(large, 8L << 50, "compat=1.1,cluster_size=2M");
        await WritingAsync(image => Refuses("Too much space will be occupied by the bitmap. Use larger granularity", () => image.AddBitmapAsync("one")), large);
        string old = _directory.File("old");
        Disk.Create(old, DiskBytes, "compat=0.10");
        await WritingAsync(image => Refuses("Cannot store dirty bitmaps in qcow2 v2 files", () => image.AddBitmapAsync("one")), old);

        static async Task Refuses(string words, Func<Task> change) =>
            Assert.EndsWith(words, (await Assert.ThrowsAsync<BitmapException>(change)).Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(16, 2)]                 // type
    [InlineData(15, 0x0a)]              // flags: a reserved one
    public async Task A_bitmap_of_an_unknown_kind_keeps_writers_out_by_its_name_and_is_left_as_it_is(int field, byte value)
    {
        Disk.Create(Path, DiskBytes, "compat=1.1");
        Tool.Run("qemu-img", "bitmap", "--add", Path, "strange");
        await PatchEntryAsync(field, value);
        string before = Judge.Fingerprint(Path);
        var refused = await Assert.ThrowsAsync<Qcow2UnsupportedException>(() => WritingAsync(_ => Task.CompletedTask));
        Assert.Contains("'strange'", refused.Message, StringComparison.Ordinal);
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image image = await Qcow2Image.OpenAsync(Path, new Qcow2OpenOptions());
            Assert.Single(await image.ListBitmapsAsync());
            await Assert.ThrowsAsync<Qcow2UnsupportedException>(() => image.GetBitmapExtentAsync("strange", 0, DiskBytes).AsTask());
        });
        Assert.Equal(before, Judge.Fingerprint(Path));
    }

    [Fact]
    public async Task A_full_disk_keeps_bitmaps_from_being_stored_and_leaves_them_in_use()
    {
        Disk.Create(Path, DiskBytes, "compat=1.1");
        Tool.Run("qemu-img", "bitmap", "--add", Path, "changes");
        const int noSpace = 28;
        await Exclusive.Run(async () =>
        {
            var file = MemoryFile.Load(File.ReadAllBytes(Path), new MemoryFile());
            Qcow2Image image = await Qcow2Image.OpenAsync(file, Disk.Writing(ClusterBytes));
            await image.WriteAsync(0, new byte[512]);
            await image.FlushAsync();
            long end = file.LengthBytes;
            file.Fault = (operation, offset) => operation == FileOperation.Write && offset >= end ? noSpace : 0;
            await Assert.ThrowsAsync<NoSpaceException>(image.CloseAsync);
            File.WriteAllBytes(Path, file.ToArray());
        });
        Assert.Contains("in-use", Tool.Run("qemu-img", "info", Path), StringComparison.Ordinal);
        await Judge.FindsCleanAsync(Path);
    }

    [Fact]
    public async Task Copies_of_bitmaps_come_to_the_disk_together_or_not_at_all()
    {
        Disk.Create(Path, DiskBytes, "compat=1.1");
        string target = _directory.File("target");
        Disk.Create(target, DiskBytes, "compat=1.1");
        const int noSpace = 28;
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image source = await Qcow2Image.OpenAsync(Path, new Qcow2OpenOptions { Access = ImageAccess.Write });
            await source.AddBitmapAsync("one", 512);
            await source.WriteAsync(1 << 20, new byte[512]);
            await source.AddBitmapAsync("two");
            await source.WriteAsync(2 << 20, new byte[512]);
            await source.DisableBitmapAsync("two");
            var file = MemoryFile.Load(File.ReadAllBytes(target), new MemoryFile());
            Qcow2Image copy = await Qcow2Image.OpenAsync(file, Disk.Writing(ClusterBytes));
            int writes = 0;
            // Bits and table of each, and the directory.
            for (int failing = 1; failing <= 5; failing++)
            {
                writes = 0;
                file.Fault = (operation, _) => operation == FileOperation.Write && ++writes == failing ? noSpace : 0;
                await Assert.ThrowsAsync<NoSpaceException>(() => copy.CopyBitmapsAsync(source, ["one", "two"]));
                Assert.Empty(await copy.ListBitmapsAsync());
            }
            file.Fault = (_, _) => 0;
            await copy.CopyBitmapsAsync(source, ["one", "two"]);
            await copy.CloseAsync();
            File.WriteAllBytes(target, file.ToArray());
        });
        File.Move(target, Path, overwrite: true);
        Assert.Equal([(1 << 20, 512), (2 << 20, 512)], QemuDirtyRanges("one"));
        Assert.Equal([(2 << 20, 64 << 10)], QemuDirtyRanges("two"));
        await Judge.FindsCleanAsync(Path);
    }

    /// <summary>Changes a byte of the first entry of the directory.</summary>
    private async Task PatchEntryAsync(int field, byte value)
    {
        long directory;
        await using (var file = LocalBlockFile.Open(Path, ImageAccess.Read))
        {
            Header header = await HeaderReader.ReadAsync(file);
            directory = BinaryPrimitives.ReadInt64BigEndian(header.Find(HeaderExtensionType.Bitmaps)!.Data.AsSpan(16));
        }
        using FileStream patched = File.OpenWrite(Path);
        patched.Position = directory + field;
        patched.WriteByte(value);
    }

    private Task WritingAsync(Func<Qcow2Image, Task> work, string? path = null) => Exclusive.Run(async () =>
    {
        await using Qcow2Image image = await Qcow2Image.OpenAsync(path ?? Path, new Qcow2OpenOptions { Access = ImageAccess.Write });
        await work(image);
    });

    private async Task<List<(long Start, long Bytes)>> DirtyRangesAsync(string name)
    {
        var ranges = new List<(long, long)>();
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image image = await Qcow2Image.OpenAsync(Path, new Qcow2OpenOptions());
            for (long at = 0; at < image.VirtualBytes;)
            {
                BitmapExtent extent = await image.GetBitmapExtentAsync(name, at, image.VirtualBytes - at);
                if (extent.IsDirty)
                    ranges.Add((at, extent.Bytes));
                at += extent.Bytes;
            }
        });
        return ranges;
    }

    private List<(long Start, long Bytes)> QemuDirtyRanges(string name) => QemuBitmap.DirtyRanges(Path, name, _directory.File("socket"));
}
