using OrleansDisk.Abstractions;
using OrleansDisk.Client;
using OrleansDisk.Grains.Tests.Fixtures;

namespace OrleansDisk.Grains.Tests.Images;

/// <summary>Internal snapshots of images that are in use.</summary>
public sealed class SnapshotTests
{
    private const int BlockBytes = 4096;
    private const int BlockCount = 64;

    [Fact]
    public async Task A_snapshot_that_is_taken_while_a_client_writes_is_one_moment_of_the_disk()
    {
        await using ImageSilo silo = await ImageSilo.StartAsync();
        await silo.Pool.CreateAsync("disk", "1M", "-o", "cluster_size=4k");
        await using (Disk disk = await silo.Client.OpenAsync("vm/disk"))
        {
            using var enough = new CancellationTokenSource();
            var begun = new TaskCompletionSource();
            Task writing = WriteRoundsAsync(disk, begun, enough.Token);
            await begun.Task;
            for (int i = 0; i < 4; i++)
            {
                ImageSnapshot taken = await silo.Client.CreateSnapshotAsync("vm/disk", $"s{i}");
                Assert.Equal(($"{i + 1}", $"s{i}", 1L << 20), (taken.Id, taken.Name, taken.VirtualBytes));
                if (i % 2 == 1)
                    await silo.Client.DeleteSnapshotAsync("vm/disk", $"s{i - 1}");
            }
            await enough.CancelAsync();
            await writing;
        }
        string[] names = [.. (await silo.Client.ListSnapshotsAsync("vm/disk")).ToArray().Select(snapshot => snapshot.Name)];
        Assert.Equal(["s1", "s3"], names);
        await silo.Client.CloseAsync("vm/disk");
        foreach (string name in names)
        {
            await Tool.RunAsync("qemu-img", "convert", "-O", "raw", "-l", $"snapshot.name={name}", silo.Pool.File("disk.qcow2"), silo.Pool.File(name));
            AssertOneMoment(await File.ReadAllBytesAsync(silo.Pool.File(name)));
        }
    }

    [Fact]
    public async Task A_disk_goes_back_to_a_snapshot_and_its_clients_read_that()
    {
        await using ImageSilo silo = await ImageSilo.StartAsync();
        await silo.Pool.CreateAsync("disk", "1M");
        await using Disk disk = await silo.Client.OpenAsync("vm/disk");
        await disk.WriteAsync(0, TestBatch.Filled(65536, 1));
        await silo.Client.CreateSnapshotAsync("vm/disk", "then");
        await disk.WriteAsync(0, TestBatch.Filled(65536, 2));
        await silo.Client.ApplySnapshotAsync("vm/disk", "then");
        byte[] read = new byte[65536];
        await disk.ReadAsync(0, read);
        Assert.Equal(TestBatch.Filled(65536, 1), read);
        await disk.WriteAsync(0, TestBatch.Filled(65536, 3));
        await disk.ReadAsync(0, read);
        Assert.Equal(TestBatch.Filled(65536, 3), read);
    }

    [Fact]
    public async Task A_snapshot_is_read_while_its_disk_goes_on_until_it_is_deleted()
    {
        await using ImageSilo silo = await ImageSilo.StartAsync();
        await silo.Pool.CreateAsync("disk", "1M", "-o", "cluster_size=4k");
        await using Disk disk = await silo.Client.OpenAsync("vm/disk");
        byte[] then = new byte[1 << 20];
        new Random(1).NextBytes(then);
        await disk.WriteAsync(0, then);
        await silo.Client.CreateSnapshotAsync("vm/disk", "then");
        await silo.Client.ResizeAsync("vm/disk", 2 << 20);
        await using Disk snapshot = await silo.Client.OpenSnapshotAsync("vm/disk", "then");
        Assert.Equal((then.Length, true), (snapshot.Bytes, snapshot.IsReadOnly));
        using var enough = new CancellationTokenSource();
        var begun = new TaskCompletionSource();
        Task writing = WriteRoundsAsync(disk, begun, enough.Token);
        await begun.Task;
        byte[] read = new byte[then.Length];
        for (int i = 0; i < 6; i++)
        {
            await disk.DiscardAsync(BlockCount * BlockBytes, 1 << 19);
            await silo.Client.CreateSnapshotAsync("vm/disk", "other");
            await snapshot.ReadAsync(0, read);
            Assert.Equal(then, read);
            await silo.Client.DeleteSnapshotAsync("vm/disk", "other");
            if (i == 3)
                await silo.Client.CloseAsync("vm/disk"); // both open again
        }
        await silo.Client.DeleteSnapshotAsync("vm/disk", "then");
        ImageException gone = await Assert.ThrowsAsync<ImageException>(() => snapshot.ReadAsync(0, read));
        Assert.Contains("no snapshot 'then'", gone.Message, StringComparison.Ordinal);
        await enough.CancelAsync();
        await writing;
        Assert.Equal(1, silo.OpenImages.Count);
    }

    [Fact]
    public async Task What_can_not_be_done_says_why()
    {
        await using ImageSilo silo = await ImageSilo.StartAsync();
        await silo.Pool.CreateAsync("disk", "1M", "-o", "refcount_bits=1");
        await using (Disk disk = await silo.Client.OpenAsync("vm/disk"))
            await disk.WriteAsync(0, new byte[] { 1 });
        await FailsAsync(SectorError.NoSpace, () => silo.Client.CreateSnapshotAsync("vm/disk", "full"));
        await FailsAsync(SectorError.NotFound, () => silo.Client.ApplySnapshotAsync("vm/disk", "none"));
        await FailsAsync(SectorError.NotFound, () => silo.Client.DeleteSnapshotAsync("vm/disk", "none"));
        await FailsAsync(SectorError.NotFound, () => silo.Client.OpenSnapshotAsync("vm/disk", "none"));
        await FailsAsync(SectorError.NotFound, () => silo.Client.CreateSnapshotAsync("vm/none", "x"));
        await FailsAsync(SectorError.ReadOnly, () => silo.Client.CreateSnapshotAsync("golden/disk", "x"));
        Assert.True((await silo.Client.ListSnapshotsAsync("vm/disk")).IsEmpty);

        static async Task FailsAsync(SectorError error, Func<Task> call) =>
            Assert.Equal(error, (await Assert.ThrowsAsync<ImageException>(call)).Error);
    }

    /// <summary>Writes all blocks from the first to the last, again and again, each round with the next value.</summary>
    private static async Task WriteRoundsAsync(Disk disk, TaskCompletionSource begun, CancellationToken enough)
    {
        for (byte round = 1; !enough.IsCancellationRequested; round++)
        {
            for (int block = 0; block < BlockCount; block++)
                await disk.WriteAsync(block * BlockBytes, TestBatch.Filled(BlockBytes, round));
            begun.TrySetResult();
        }
    }

    /// <summary>Some blocks from the first on have the value of a round, and all others that of the round before.</summary>
    private static void AssertOneMoment(byte[] disk)
    {
        byte[] rounds = [.. Enumerable.Range(0, BlockCount).Select(block => disk[block * BlockBytes])];
        for (int block = 0; block < BlockCount; block++)
            Assert.False(disk.AsSpan(block * BlockBytes, BlockBytes).ContainsAnyExcept(rounds[block]), $"block {block} is torn");
        int later = rounds.TakeWhile(round => round == rounds[0]).Count();
        Assert.All(rounds[later..], round => Assert.Equal((byte)(rounds[0] - 1), round));
    }
}
