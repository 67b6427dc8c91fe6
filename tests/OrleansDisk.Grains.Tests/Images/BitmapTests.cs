using OrleansDisk.Abstractions;
using OrleansDisk.Client;
using OrleansDisk.Grains.Tests.Fixtures;

namespace OrleansDisk.Grains.Tests.Images;

/// <summary>Persistent dirty bitmaps of images that are in use.</summary>
public sealed class BitmapTests
{
    private const int DiskBytes = 16 << 20;
    private const int Granularity = 64 << 10;

    [Fact]
    public async Task Bitmaps_are_changed_while_clients_write_and_outlive_the_closing_of_the_image()
    {
        await using ImageSilo silo = await ImageSilo.StartAsync();
        DiskClient client = silo.Client;
        await client.CreateAsync("vm/disk", new CreateImage { VirtualBytes = DiskBytes });
        await using (Disk disk = await client.OpenAsync("vm/disk"))
        {
            await client.AddBitmapAsync("vm/disk", new AddBitmap { Name = "one" });
            await client.AddBitmapAsync("vm/disk", new AddBitmap { Name = "two", GranularityBytes = 1 << 20, IsDisabled = true });
            await disk.WriteAsync(Granularity + 5, new byte[] { 1 });
            await client.MergeBitmapAsync("vm/disk", "two", "one");
            await client.DisableBitmapAsync("vm/disk", "one");
            await disk.WriteAsync(8 * Granularity, new byte[] { 1 });
            await client.EnableBitmapAsync("vm/disk", "one");
            await disk.WriteAsync(9 * Granularity, new byte[] { 1 });
        }
        await client.CloseAsync("vm/disk");
        Assert.Equal(
            [
                new ImageBitmap { Name = "one", GranularityBytes = Granularity, IsEnabled = true, IsInconsistent = false },
                new ImageBitmap { Name = "two", GranularityBytes = 1 << 20, IsEnabled = false, IsInconsistent = false },
            ],
            (await client.ListBitmapsAsync("vm/disk")).ToArray());
        Assert.Equal([(Granularity, Granularity), (9 * Granularity, Granularity)], await DirtyAsync(client, "one"));
        Assert.Equal([(0, 1 << 20)], await DirtyAsync(client, "two"));
        await client.ClearBitmapAsync("vm/disk", "one");
        await client.RemoveBitmapAsync("vm/disk", "two");
        Assert.Empty(await DirtyAsync(client, "one"));
        Assert.Equal(1, (await client.ListBitmapsAsync("vm/disk")).Length);
    }

    [Fact]
    public async Task Snapshots_and_bitmaps_make_incremental_backups_of_moments_of_a_disk_that_is_written_all_the_time()
    {
        await using ImageSilo silo = await ImageSilo.StartAsync();
        DiskClient client = silo.Client;
        await client.CreateAsync("vm/disk", new CreateImage { VirtualBytes = DiskBytes });
        await client.AddBitmapAsync("vm/disk", new AddBitmap { Name = "0" });
        await using Disk disk = await client.OpenAsync("vm/disk");
        using var enough = new CancellationTokenSource();
        Task writing = WriteAsync(disk, enough.Token);
        byte[] backup = new byte[DiskBytes];
        for (int round = 0; round < 5; round++)
        {
            // What comes between these steps is in both bitmaps: it is copied once too often, and never too seldom.
            await client.AddBitmapAsync("vm/disk", new AddBitmap { Name = $"{round + 1}" });
            await client.CreateSnapshotAsync("vm/disk", "moment");
            await client.DisableBitmapAsync("vm/disk", $"{round}");
            byte[] moment = new byte[DiskBytes];
            await using (Disk snapshot = await client.OpenSnapshotAsync("vm/disk", "moment"))
            {
                foreach ((long start, long bytes) in await DirtyAsync(client, $"{round}"))
                    await snapshot.ReadAsync(start, backup.AsMemory((int)start, (int)bytes));
                await snapshot.ReadAsync(0, moment);
            }
            Assert.Equal(moment, backup);
            await client.DeleteSnapshotAsync("vm/disk", "moment");
            await client.RemoveBitmapAsync("vm/disk", $"{round}");
        }
        await enough.CancelAsync();
        await writing;
    }

    [Fact]
    public async Task What_can_not_be_done_says_why()
    {
        await using ImageSilo silo = await ImageSilo.StartAsync();
        DiskClient client = silo.Client;
        await silo.Pool.CreateAsync("disk", "16M");
        string path = silo.Pool.File("disk.qcow2");
        await Tool.RunAsync("qemu-img", "bitmap", "--add", path, "broken");
        await Tool.TryAsync("qemu-io", "-c", "sigraise 9", path);
        await Tool.RunAsync("qemu-img", "bitmap", "--add", path, "sound");
        await FailsAsync(SectorError.NotFound, "none", () => client.ClearBitmapAsync("vm/disk", "none"));
        await FailsAsync(SectorError.AlreadyExists, "sound", () => client.AddBitmapAsync("vm/disk", new AddBitmap { Name = "sound" }));
        await FailsAsync(SectorError.InvalidArgument, "Granularity", () => client.AddBitmapAsync("vm/disk", new AddBitmap { Name = "x", GranularityBytes = 3 }));
        await FailsAsync(SectorError.ReadOnly, "golden", () => client.ClearBitmapAsync("golden/disk", "sound"));
        await FailsAsync(SectorError.InvalidArgument, "inside", () => client.GetDirtyExtentsAsync("vm/disk", "sound", 0, DiskBytes + 1));
        foreach (Func<Task> call in (Func<Task>[])[() => client.ClearBitmapAsync("vm/disk", "broken"), () => client.EnableBitmapAsync("vm/disk", "broken"),
            () => client.MergeBitmapAsync("vm/disk", "sound", "broken"), () => client.GetDirtyExtentsAsync("vm/disk", "broken", 0, 512)])
        {
            await FailsAsync(SectorError.Inconsistent, "'broken'", call);
        }
        await client.RemoveBitmapAsync("vm/disk", "broken");

        static async Task FailsAsync(SectorError error, string named, Func<Task> call)
        {
            ImageException refused = await Assert.ThrowsAsync<ImageException>(call);
            Assert.Equal(error, refused.Error);
            Assert.Contains(named, refused.Message, StringComparison.Ordinal);
        }
    }

    private static async Task WriteAsync(Disk disk, CancellationToken enough)
    {
        var random = new Random(3);
        while (!enough.IsCancellationRequested)
        {
            byte[] data = new byte[random.Next(1, 50_000)];
            random.NextBytes(data);
            await disk.WriteAsync(random.Next(DiskBytes - data.Length), data);
        }
    }

    private static async Task<List<(long, long)>> DirtyAsync(DiskClient client, string bitmap)
    {
        var ranges = new List<(long, long)>();
        long at = 0;
        foreach (DirtyExtent extent in (await client.GetDirtyExtentsAsync("vm/disk", bitmap, 0, DiskBytes)).ToArray())
        {
            if (extent.IsDirty)
                ranges.Add((at, extent.Bytes));
            at += extent.Bytes;
        }
        Assert.Equal(DiskBytes, at);
        return ranges;
    }
}
