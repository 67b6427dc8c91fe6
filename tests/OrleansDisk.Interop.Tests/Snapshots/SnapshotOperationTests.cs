using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Format;

namespace OrleansDisk.Interop.Tests.Snapshots;

/// <summary>Snapshots that the engine takes, applies and deletes; QEMU judges images and snapshots.</summary>
public sealed class SnapshotOperationTests
{
    private static readonly DateTimeOffset s_date = DateTimeOffset.FromUnixTimeSeconds(1_700_000_000);

    [Theory]
    [MemberData(nameof(SnapshotModel.Geometries), MemberType = typeof(SnapshotModel))]
    public async Task Both_engines_take_apply_and_delete_snapshots_of_one_image_in_turn(string compat, int clusterBytes, int refcountBits)
    {
        using var model = new SnapshotModel((2 << 20) + 1536, clusterBytes, $"compat={compat},refcount_bits={refcountBits}");
        await model.WriteAsync(seed: 1);
        await model.OnImageAsync(image => image.CreateSnapshotAsync(Named("ours")));
        model.NoteTaken("ours");
        await model.JudgeAsync();

        await model.WriteAsync(seed: 2);
        Tool.Run("qemu-img", "snapshot", "-c", "theirs", model.Path);
        model.NoteTaken("theirs");
        await model.WriteAsync(seed: 3);
        await model.JudgeAsync();

        await model.OnImageAsync(image => image.ApplySnapshotAsync("ours"));
        model.NoteApplied("ours");
        await model.JudgeAsync();
        await model.WriteAsync(seed: 4);
        await model.JudgeAsync();

        // QEMU raises refcounts before it lowers them: 4 does not fit 2 bits.
        if (refcountBits == 2)
            await model.OnImageAsync(image => image.ApplySnapshotAsync("theirs"));
        else
            Tool.Run("qemu-img", "snapshot", "-a", "theirs", model.Path);
        model.NoteApplied("theirs");
        await model.OnImageAsync(image => image.DeleteSnapshotAsync("theirs"));
        model.NoteDeleted("theirs");
        await model.JudgeAsync();
        await model.WriteAsync(seed: 5);
        await model.JudgeAsync();

        await model.OnImageAsync(image => image.DeleteSnapshotAsync("1"));
        model.NoteDeleted("ours");
        await model.JudgeAsync();
        await model.WriteAsync(seed: 6);
        await model.JudgeAsync();
    }

    [Fact]
    public async Task Many_operations_on_an_open_image_with_compressed_clusters_and_a_backing_file_keep_every_snapshot()
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string backing = directory.File("base.qcow2");
        Disk.Create(backing, 3 << 20, "cluster_size=64k");
        Disk.QemuIo(backing, "write -P 0x31 0 3M", "write -z 1M 100k");
        string path = directory.File("disk.qcow2");
        Disk.CreateOverlay(path, backing, "qcow2", 2 << 20, "cluster_size=4k");
        Disk.QemuIo(path, "write -c -P 0x41 0 64k", "write -c -P 0x42 512k 64k");
        byte[] model = Read(path);
        var random = new Random(7);
        var snapshots = new Dictionary<string, byte[]>();
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image image = await Qcow2Image.OpenAsync(path, Disk.Writing(4096));
            for (int i = 0; i < 60; i++)
            {
                await WriteSomewhereAsync(image, model, random);
                string name = $"s{random.Next(5)}";
                if (!snapshots.TryGetValue(name, out byte[]? kept))
                {
                    await image.CreateSnapshotAsync(Named(name));
                    snapshots[name] = [.. model];
                }
                else if (random.Next(2) == 0)
                {
                    await image.ApplySnapshotAsync(name);
                    kept.CopyTo(model, 0);
                }
                else
                {
                    await image.DeleteSnapshotAsync(name);
                    snapshots.Remove(name);
                }
                byte[] disk = new byte[model.Length];
                await image.ReadAsync(0, disk);
                Assert.True(disk.AsSpan().SequenceEqual(model), $"after operation {i}");
            }
        });
        await JudgeAsync(path, model, snapshots);
    }

    [Fact]
    public async Task Ids_count_on_from_the_highest_and_are_looked_for_before_names()
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = directory.File("disk.qcow2");
        Disk.Create(path, 1 << 20, "compat=1.1");
        foreach (string name in (string[])["2", "1", "x"])
            await OnImageAsync(path, image => image.CreateSnapshotAsync(Named(name)));
        await OnImageAsync(path, image => image.DeleteSnapshotAsync("1"));
        Assert.Equal(["2:1", "3:x"], await ListAsync(path));
        await OnImageAsync(path, image => image.CreateSnapshotAsync(Named("y")));
        Assert.Equal(["2:1", "3:x", "4:y"], await ListAsync(path));
        var missing = await Assert.ThrowsAsync<SnapshotException>(() => OnImageAsync(path, image => image.ApplySnapshotAsync("z")));
        Assert.Equal(SnapshotError.NotFound, missing.Error);
    }

    [Fact]
    public async Task Refcounts_that_can_not_grow_refuse_a_snapshot_and_nothing_leaks()
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = directory.File("disk.qcow2");
        Disk.Create(path, 1 << 20, "cluster_size=4k,refcount_bits=1");
        Disk.QemuIo(path, "write -P 0x55 0 1M");
        string before = Judge.Fingerprint(path);
        var full = await Assert.ThrowsAsync<SnapshotException>(() => OnImageAsync(path, image => image.CreateSnapshotAsync(Named("a"))));
        Assert.Equal(SnapshotError.RefcountsFull, full.Error);
        Assert.Equal(before, Judge.Fingerprint(path));
        await Judge.FindsCleanAsync(path);
    }

    [Fact]
    public async Task A_snapshot_brings_the_size_of_its_disk_back()
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = directory.File("disk.qcow2");
        Disk.Create(path, 1 << 20, "cluster_size=512");
        Disk.QemuIo(path, "write -P 0x55 0 1M");
        await OnImageAsync(path, image => image.CreateSnapshotAsync(Named("small")));
        await OnImageAsync(path, async image =>
        {
            await image.ResizeAsync(5 << 20);
            await image.WriteAsync(4 << 20, Enumerable.Repeat((byte)0x66, 4096).ToArray());
            await image.CreateSnapshotAsync(Named("large"));
            await image.ApplySnapshotAsync("small");
            Assert.Equal(1 << 20, image.VirtualBytes);
        });
        await Judge.FindsCleanAsync(path);
        Disk.QemuIo(path, "read -P 0x55 0 1M");
        await OnImageAsync(path, image => image.ApplySnapshotAsync("large"));
        await Judge.FindsCleanAsync(path);
        Disk.QemuIo(path, "read -P 0x66 4M 4k", "read -P 0 4100k 1020k");
    }

    [Fact]
    public async Task A_snapshot_is_read_without_being_applied_and_never_written()
    {
        using var model = new SnapshotModel(1 << 20, 4096, "compat=1.1");
        string path = model.Path;
        await model.WriteAsync(seed: 1);
        await model.OnImageAsync(image => image.CreateSnapshotAsync(Named("then")));
        byte[] then = [.. model.Contents];
        await model.WriteAsync(seed: 2);
        await model.OnImageAsync(image => image.ResizeAsync(2 << 20));
        foreach (SnapshotSelector selector in (SnapshotSelector[])[new() { IdOrName = "1" }, new() { Name = "then" }, new() { Id = "1", Name = "then" }])
        {
            await using Qcow2Image view = await Qcow2Image.OpenAsync(path, new Qcow2OpenOptions { Snapshot = selector });
            Assert.Equal(then.Length, view.VirtualBytes);
            byte[] disk = new byte[then.Length];
            await view.ReadAsync(0, disk);
            Assert.True(disk.AsSpan().SequenceEqual(then));
        }
        await Assert.ThrowsAsync<Qcow2Exception>(() => Qcow2Image.OpenAsync(path, Disk.Writing(4096) with { Snapshot = new() { IdOrName = "then" } }));
        await Assert.ThrowsAsync<SnapshotException>(() => Qcow2Image.OpenAsync(path, new Qcow2OpenOptions { Snapshot = new() { Id = "then" } }));
    }

    [Fact]
    public async Task Vm_state_goes_with_its_snapshot_and_comes_back_when_that_is_applied()
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = directory.File("disk.qcow2");
        Disk.Create(path, (1 << 20) + 512, "cluster_size=4k");
        byte[] state = Disk.MixedBytes(300_001, seed: 3);
        await OnImageAsync(path, async image =>
        {
            await image.WriteAsync(0, new byte[5000].Select(_ => (byte)9).ToArray());
            await image.WriteVmStateAsync(0, state.AsMemory(0, 100_000));
            await image.WriteVmStateAsync(100_000, state.AsMemory(100_000));
            await image.CreateSnapshotAsync(Named("running") with { VmStateBytes = (ulong)state.Length, VmClockNanoseconds = 12_345_678_901, InstructionCount = 77 });
            byte[] gone = new byte[4096];
            await image.ReadVmStateAsync(0, gone);
            Assert.False(gone.AsSpan().ContainsAnyExcept((byte)0));
        });
        await Judge.FindsCleanAsync(path);
        Assert.Matches(@"running +293 KiB 2023-11-14 .* 00:00:12\.345 +77", Tool.Run("qemu-img", "snapshot", "-l", path));
        await OnImageAsync(path, async image =>
        {
            await image.ApplySnapshotAsync("running");
            byte[] back = new byte[state.Length];
            await image.ReadVmStateAsync(0, back);
            Assert.True(back.AsSpan().SequenceEqual(state));
            await image.CreateSnapshotAsync(Named("without"));
            await image.ResizeAsync(64 << 20);
            byte[] disk = new byte[1 << 20];
            await image.ReadAsync((1 << 20) + 512, disk);
            Assert.False(disk.AsSpan().ContainsAnyExcept((byte)0));
        });
        await Judge.FindsCleanAsync(path);
    }

    [Fact]
    public async Task What_qemu_saved_with_a_running_machine_is_kept()
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = directory.File("disk.qcow2");
        Disk.Create(path, 1 << 20, "cluster_size=64k");
        Disk.QemuIo(path, "write -P 1 0 128k", "write -b -P 0x7e 0 200k");
        Tool.Run("qemu-img", "snapshot", "-c", "a", path);
        await OnImageAsync(path, async image =>
        {
            byte[] state = new byte[200 << 10];
            await image.ReadVmStateAsync(0, state);
            Assert.False(state.AsSpan().ContainsAnyExcept((byte)0x7e));
            await image.CreateSnapshotAsync(Named("b") with { VmStateBytes = (ulong)state.Length });
        });
        await Judge.FindsCleanAsync(path);
        Tool.Run("qemu-img", "snapshot", "-a", "b", path);
        Disk.QemuIo(path, "read -b -P 0x7e 0 200k");
        await Judge.FindsCleanAsync(path);
    }

    [Fact]
    public async Task Unknown_extra_data_and_names_of_any_bytes_are_kept_when_the_table_is_written_again()
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = directory.File("disk.qcow2");
        Disk.Create(path, 1 << 20, "cluster_size=4k");
        Tool.Run("qemu-img", "snapshot", "-c", "abcdefghijklmnop", path);
        byte[] file = File.ReadAllBytes(path);
        var header = Header.Parse(file);
        // The name's first eight bytes become extra data, its next one is no UTF-8.
        int at = (int)header.SnapshotTable.Bytes;
        file[at + 39] += 8;
        file[at + 15] -= 8;
        byte[] strings = file.AsSpan(at + 64, 17).ToArray();
        strings.AsSpan(1, 8).CopyTo(file.AsSpan(at + 64));
        file[at + 72] = strings[0];
        file[at + 73] = 0xff;
        File.WriteAllBytes(path, file);
        await OnImageAsync(path, image => image.CreateSnapshotAsync(Named("new")));
        byte[] after = File.ReadAllBytes(path);
        int table = (int)Header.Parse(after).SnapshotTable.Bytes;
        Assert.NotEqual(at, table);
        Assert.True(after.AsSpan(table, 81).SequenceEqual(file.AsSpan(at, 81)));
        await Judge.FindsCleanAsync(path);
    }

    [Fact]
    public async Task An_operation_that_is_cancelled_has_changed_nothing()
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = directory.File("disk.qcow2");
        Disk.Create(path, 1 << 20, "cluster_size=4k");
        Disk.QemuIo(path, "write -P 0x55 0 1M");
        Tool.Run("qemu-img", "snapshot", "-c", "a", path);
        string before = Judge.Fingerprint(path);
        using var cancelled = new CancellationTokenSource();
        await cancelled.CancelAsync();
        await OnImageAsync(path, async image =>
        {
            await Assert.ThrowsAsync<OperationCanceledException>(() => image.CreateSnapshotAsync(Named("b"), cancelled.Token));
            await Assert.ThrowsAsync<OperationCanceledException>(() => image.DeleteSnapshotAsync("a", cancelled.Token));
            await Assert.ThrowsAsync<OperationCanceledException>(() => image.ApplySnapshotAsync("a", cancelled.Token));
        });
        Assert.Equal(before, Judge.Fingerprint(path));
    }

    [Fact]
    public async Task A_refcount_table_that_is_full_grows_with_the_snapshot_that_needs_it()
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = directory.File("disk.qcow2");
        // One cluster of table leads to 64 blocks of 64 clusters each: 2 MiB.
        Disk.Create(path, 4 << 20, "cluster_size=512,refcount_bits=64");
        await OnImageAsync(path, async image =>
        {
            await image.WriteAsync(0, new byte[1900 << 10].Select(_ => (byte)3).ToArray());
            await image.CreateSnapshotAsync(Named("a"));
            await image.CreateSnapshotAsync(Named("b"));
            await image.WriteAsync(0, new byte[1900 << 10].Select(_ => (byte)4).ToArray());
            await image.CreateSnapshotAsync(Named("c"));
        });
        await Judge.FindsCleanAsync(path);
        Assert.False(Judge.ReadSnapshot(path, "b").AsSpan(0, 1900 << 10).ContainsAnyExcept((byte)3));
    }

    private static SnapshotDescription Named(string name) => new() { Name = name, Date = s_date };

    private static Task OnImageAsync(string path, Func<Qcow2Image, Task> act) => Disk.OnImageAsync(path, 4096, act);

    private static async Task<string[]> ListAsync(string path)
    {
        await using Qcow2Image image = await Qcow2Image.OpenAsync(path, new Qcow2OpenOptions());
        return [.. (await image.ListSnapshotsAsync()).Select(snapshot => $"{snapshot.Id}:{snapshot.Name}")];
    }

    private static async Task WriteSomewhereAsync(Qcow2Image image, byte[] model, Random random)
    {
        int bytes = 1 + random.Next(40_000);
        int at = random.Next(model.Length - bytes);
        byte[] data = new byte[bytes];
        random.NextBytes(data);
        if (random.Next(3) == 0)
        {
            data.AsSpan().Clear();
            await image.WriteZeroesAsync(at, bytes, mayUnmap: random.Next(2) == 0);
        }
        else
        {
            await image.WriteAsync(at, data);
        }
        data.CopyTo(model, at);
    }

    private static byte[] Read(string path)
    {
        string raw = path + ".raw";
        Tool.Run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", path, raw);
        return File.ReadAllBytes(raw);
    }

    private static async Task JudgeAsync(string path, byte[] model, Dictionary<string, byte[]> snapshots)
    {
        await Judge.FindsCleanAsync(path);
        Judge.ReadsAs(path, model);
        foreach ((string name, byte[] bytes) in snapshots)
            Assert.True(Judge.ReadSnapshot(path, name).AsSpan().SequenceEqual(bytes), $"snapshot {name} has changed");
    }
}
