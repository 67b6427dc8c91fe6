using System.Diagnostics;
using System.Globalization;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Io;
using Xunit.Abstractions;

namespace OrleansDisk.Interop.Tests.Snapshots;

/// <summary>Snapshots of a large disk, and many of them.</summary>
public sealed class SnapshotScaleTests(ITestOutputHelper output)
{
    private const long DiskBytes = 1L << 40;
    private const int GroupCount = 1000;
    private const int SnapshotCount = 20;

    /// <summary>ODISK_SNAPSHOT_CLUSTERS: how many clusters are mapped; each takes 4 KiB of the file system.</summary>
    private static readonly int s_mappedCount =
        int.Parse(Environment.GetEnvironmentVariable("ODISK_SNAPSHOT_CLUSTERS") ?? "20000", CultureInfo.InvariantCulture);

    [Fact]
    public async Task A_disk_of_a_tebibyte_has_many_snapshots_that_come_and_go_quickly()
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = directory.File("disk.qcow2");
        Disk.Create(path, DiskBytes, "cluster_size=64k");
        var create = new List<double>();
        var delete = new List<double>();
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image image = await Qcow2Image.OpenAsync(path, new Qcow2OpenOptions { Access = ImageAccess.Write });
            for (int i = 0; i < s_mappedCount; i++)
                await image.WriteAsync(((i % GroupCount) * (DiskBytes / GroupCount)) + (i / GroupCount * 65536L), new byte[512]);
            for (int i = 0; i < SnapshotCount; i++)
            {
                await image.WriteAsync((long)i << 30, new byte[4096]);
                create.Add(await TimeAsync(() => image.CreateSnapshotAsync(new() { Name = $"s{i}", Date = DateTimeOffset.UnixEpoch })));
            }
            for (int i = 0; i < SnapshotCount; i += 2)
                delete.Add(await TimeAsync(() => image.DeleteSnapshotAsync($"s{i}")));
        });
        output.WriteLine($"create: first {create[0]:0} ms, mean {create.Average():0}; delete: mean {delete.Average():0}, longest {delete.Max():0}");
        await Judge.FindsCleanAsync(path);
        // Far more than it takes on a busy machine; work that grew with the square of anything would take hours.
        Assert.True(create.Average() < 5000 && delete.Average() < 5000);
    }

    private static async Task<double> TimeAsync(Func<Task> act)
    {
        long start = Stopwatch.GetTimestamp();
        await act();
        return Stopwatch.GetElapsedTime(start).TotalMilliseconds;
    }
}
