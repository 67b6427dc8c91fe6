using System.Buffers.Binary;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Check;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Interop.Tests;

/// <summary>An image is checked while guests write it, and they need not wait for the check.</summary>
public sealed class CheckInUseTests
{
    private const int ClusterBytes = 512;
    private const int DiskBytes = 2 << 20;

    [Fact]
    public Task Guests_write_and_flush_while_the_check_runs_and_it_sees_one_moment() => Run(async (image, _) =>
    {
        var random = new Random(5);
        for (int round = 0; round < 4; round++)
        {
            Task<CheckReport> check = image.CheckAsync(new CheckOptions());
            int changes = 0;
            while (!check.IsCompleted)
            {
                long offset = random.Next(DiskBytes / ClusterBytes) * (long)ClusterBytes;
                if (random.Next(3) == 0)
                    await image.DiscardAsync(offset, Math.Min(16 * ClusterBytes, DiskBytes - offset));
                else
                    await image.WriteAsync(offset, new byte[ClusterBytes]);
                if (random.Next(8) == 0)
                    await image.FlushAsync();
                changes++;
                await Task.Yield(); // the file is in memory: without this nobody else would have a turn
            }
            CheckReport report = await check;
            Assert.True(report.IsConsistent, string.Join('\n', report.Findings.Take(5).Select(finding => finding.Message)));
            Assert.True(changes > 20, $"{changes} changes were done while the check ran");
        }
    });

    [Fact]
    public Task A_check_reports_damage_of_an_image_in_use() => Run(async (image, file) =>
    {
        await image.FlushAsync();
        byte[] header = new byte[56];
        await file.ReadAsync(0, header);
        long refcountTable = (long)BinaryPrimitives.ReadUInt64BigEndian(header.AsSpan(48));
        byte[] entry = new byte[8];
        await file.ReadAsync(refcountTable, entry);
        long block = (long)BinaryPrimitives.ReadUInt64BigEndian(entry);
        await file.WriteAsync(block, new byte[] { 0, 9 });
        var findings = new List<string>();
        CheckReport report = await image.CheckAsync(new CheckOptions { OnFinding = finding => findings.Add(finding.Message) });
        Assert.Equal(1, report.LeakCount);
        Assert.Equal(["Leaked cluster 0 refcount=9 reference=1"], findings);
    }, isSound: false);

    [Fact]
    public Task A_disk_that_grows_meanwhile_does_not_wait_for_the_check_which_begins_again() => Run(async (image, _) =>
    {
        Task<CheckReport> check = image.CheckAsync(new CheckOptions());
        for (int i = 1; i <= 5; i++)
        {
            await image.WriteAsync(0, new byte[ClusterBytes]);
            await image.ResizeAsync(DiskBytes + (i << 20));
        }
        Assert.True((await check).IsConsistent);
    });

    [Fact]
    public Task Checks_come_one_after_the_other() => Run(async (image, _) =>
    {
        CheckReport[] reports = await Task.WhenAll(Enumerable.Range(0, 3).Select(_ => image.CheckAsync(new CheckOptions())));
        Assert.All(reports, report => Assert.True(report.IsConsistent));
    });

    [Fact]
    public Task An_image_that_is_closed_ends_its_check() => Run(async (image, _) =>
    {
        Task<CheckReport> check = image.CheckAsync(new CheckOptions());
        await image.WriteAsync(0, new byte[ClusterBytes]);
        await image.CloseAsync();
        await Assert.ThrowsAsync<Qcow2Exception>(() => check);
    });

    private static Task Run(Func<Qcow2Image, MemoryFile, Task> test, bool isSound = true) => Exclusive.Run(async () =>
    {
        var file = new MemoryFile();
        await CreateOperation.CreateAsync(file, new CreateOptions { VirtualBytes = DiskBytes, ClusterBytes = ClusterBytes });
        Qcow2Image image = await Qcow2Image.OpenAsync(file, new Qcow2OpenOptions { Access = ImageAccess.Write });
        for (int offset = 0; offset < DiskBytes; offset += 64 * 1024)
            await image.WriteAsync(offset, new byte[48 * 1024]);
        await test(image, file);
        await image.CloseAsync();
        if (isSound)
            Assert.True((await ImageCheck.RunAsync(file, new CheckOptions())).IsConsistent);
    });
}
