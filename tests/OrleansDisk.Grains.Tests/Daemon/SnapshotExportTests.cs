using OrleansDisk.Grains.Tests.Fixtures;
using OrleansDisk.Nbd.Client;

namespace OrleansDisk.Grains.Tests.Daemon;

/// <summary>POOL/IMAGE@SNAPSHOT: a moment of a disk, for a backup while the disk is in use.</summary>
public sealed class SnapshotExportTests
{
    [Fact]
    public async Task A_snapshot_is_copied_while_its_disk_is_written()
    {
        using var pool = new PoolDirectory();
        await pool.CreateAsync("disk@home", "32M");
        string path = pool.File("disk@home.qcow2");
        await Tool.RunAsync("qemu-io", "-f", "qcow2", "-c", "write -P 1 1M 20M", path);
        await Tool.RunAsync("qemu-img", "snapshot", "-c", "a@b", path);
        await Tool.RunAsync("qemu-img", "convert", "-O", "raw", "-l", "snapshot.name=a@b", path, pool.File("expected.raw"));
        using RunningDaemon daemon = await RunningDaemon.StartAsync(pool);
        await using (NbdClient client = await NbdClient.ConnectUnixAsync(pool.File("nbd.sock"), "vm/disk@home"))
        {
            using var enough = new CancellationTokenSource();
            Task writing = WriteAsync(client, enough.Token);
            foreach (string name in (string[])["a@b", "1"])
                await Tool.RunAsync("nbdcopy", daemon.Uri($"vm/disk@home@{name}"), pool.File($"{name}.raw"));
            await enough.CancelAsync();
            await writing;
        }
        foreach (string name in (string[])["a@b", "1"])
            Assert.Equal(await File.ReadAllBytesAsync(pool.File("expected.raw")), await File.ReadAllBytesAsync(pool.File($"{name}.raw")));
        Assert.Contains("is_read_only: true", await Tool.RunAsync("nbdinfo", daemon.Uri("vm/disk@home@1")), StringComparison.Ordinal);
        IOException refused = await Assert.ThrowsAsync<IOException>(() => NbdClient.ConnectUnixAsync(pool.File("nbd.sock"), "vm/disk@home@none"));
        Assert.Contains("no snapshot 'none'", refused.Message, StringComparison.Ordinal);
        await Assert.ThrowsAsync<IOException>(() => NbdClient.ConnectUnixAsync(pool.File("nbd.sock"), "vm/none@1"));
        Assert.Equal(0, await daemon.StopAsync());
        await pool.CheckAllAsync();
    }

    private static async Task WriteAsync(NbdClient client, CancellationToken enough)
    {
        var random = new Random(1);
        while (!enough.IsCancellationRequested)
            await client.WriteAsync(random.Next(31 << 20), TestBatch.Filled(random.Next(1, 200_000), 2));
    }
}
