using OrleansDisk.Grains.Tests.Fixtures;
using OrleansDisk.Nbd.Client;

namespace OrleansDisk.Grains.Tests.Daemon;

/// <summary>Incremental backups by an export that tells of a bitmap, across the ends of the daemon.</summary>
public sealed class BackupTests
{
    private static readonly string[] _export = ["--read-only-export", "backup=vm/disk", "--bitmap", "backup=since"];

    [Fact]
    public async Task A_bitmap_goes_on_after_an_orderly_end_and_after_a_crash_it_is_refused_by_name()
    {
        using var pool = new PoolDirectory();
        await pool.CreateAsync("disk", "16M");
        string path = pool.File("disk.qcow2");
        string copy = pool.File("copy.raw");
        await Tool.RunAsync("qemu-img", "convert", "-O", "raw", path, copy);
        await Tool.RunAsync("qemu-img", "bitmap", "--add", path, "since");
        using (RunningDaemon daemon = await RunningDaemon.StartAsync(pool, _export))
        {
            await ChangeAsync(pool, 1, 1 << 20, 5 << 20);
            Assert.Equal(0, await daemon.StopAsync());
        }
        using (RunningDaemon daemon = await RunningDaemon.StartAsync(pool, _export))
        {
            await ChangeAsync(pool, 2, 5 << 20, 9 << 20);
            await using (NbdClient reader = await ConnectAsync(pool, "backup"))
                Assert.Equal(3 * (64 << 10), await DirtyMap.CopyAsync(daemon.Uri("backup"), "since", (start, buffer) => reader.ReadAsync(start, buffer), copy));
            await Tool.RunAsync("nbdcopy", daemon.Uri("vm/disk"), pool.File("whole.raw"));
            Assert.Equal(await File.ReadAllBytesAsync(pool.File("whole.raw")), await File.ReadAllBytesAsync(copy));
            await daemon.CrashAsync();
        }
        using (RunningDaemon daemon = await RunningDaemon.StartAsync(pool, _export))
        {
            Assert.NotEqual(0, (await Tool.TryAsync("nbdinfo", "--map=qemu:dirty-bitmap:since", daemon.Uri("backup"))).ExitCode);
            IOException refused = await Assert.ThrowsAsync<IOException>(() => ConnectAsync(pool, "backup"));
            Assert.Contains("Bitmap 'since' is inconsistent", refused.Message, StringComparison.Ordinal);
            await ChangeAsync(pool, 3, 12 << 20); // the disk itself is there
            Assert.Equal(0, await daemon.StopAsync());
        }
        await Tool.RunAsync("qemu-img", "bitmap", "--remove", "--add", path, "since");
        using (RunningDaemon daemon = await RunningDaemon.StartAsync(pool, _export))
        {
            await ChangeAsync(pool, 4, 2 << 20);
            Assert.Equal([(2 << 20, 64 << 10)], await DirtyMap.ReadAsync(daemon.Uri("backup"), "since"));
            Assert.Equal(0, await daemon.StopAsync());
        }
        await pool.CheckAllAsync(leaksAllowed: true);
    }

    private static async Task ChangeAsync(PoolDirectory pool, byte value, params int[] offsets)
    {
        await using NbdClient client = await ConnectAsync(pool, "vm/disk");
        foreach (int offset in offsets)
            await client.WriteAsync(offset, TestBatch.Filled(1000, value));
        await client.FlushAsync();
    }

    private static Task<NbdClient> ConnectAsync(PoolDirectory pool, string export) => NbdClient.ConnectUnixAsync(pool.File("nbd.sock"), export);
}
