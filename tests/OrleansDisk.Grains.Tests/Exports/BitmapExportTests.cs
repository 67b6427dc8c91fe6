using OrleansDisk.Abstractions;
using OrleansDisk.Client;
using OrleansDisk.Grains.Tests.Fixtures;
using OrleansDisk.Nbd.Client;
using OrleansDisk.Nbd.Server;
using OrleansDisk.Server.Configuration;
using OrleansDisk.Server.Exports;

namespace OrleansDisk.Grains.Tests.Exports;

/// <summary>Incremental backups of images in use, as programs make them that speak NBD.</summary>
public sealed class BitmapExportTests
{
    private const int DiskBytes = 32 << 20;

    [Fact]
    public async Task A_backup_follows_the_disk_by_the_bitmap_alone_whoever_holds_the_image_meanwhile()
    {
        await using ImageSilo silo = await ImageSilo.StartAsync();
        await silo.Client.CreateAsync("vm/disk", new CreateImage { VirtualBytes = DiskBytes });
        await silo.Client.AddBitmapAsync("vm/disk", new AddBitmap { Name = "backup", GranularityBytes = 64 << 10 });
        string socket = silo.Pool.File("nbd.sock");
        string uri = $"nbd+unix:///backup?socket={socket}";
        string copy = silo.Pool.File("copy.raw");
        var export = new GrainExport(silo.Grains, silo.OpenImages, TimeProvider.System, new ExportSetting("backup", "vm/disk", IsReadOnly: true, "", ["backup"]));
        await using var server = new NbdServer([NbdListenAddress.Unix(socket)], () => [export], new NbdServerOptions());
        await server.StartAsync();
        await using (Disk disk = await silo.Client.OpenAsync("vm/disk"))
        {
            var random = new Random(1);
            await ChangeAsync(disk, random, 40);
            await Tool.RunAsync("nbdcopy", uri, copy);
            await silo.Client.ClearBitmapAsync("vm/disk", "backup");
            for (int round = 0; round < 4; round++)
            {
                await ChangeAsync(disk, random, 8);
                if (round % 2 == 1)
                    await silo.Client.CloseAsync("vm/disk"); // the next one opens it again
                long copied = await DirtyMap.CopyAsync(uri, "backup", (start, buffer) => disk.ReadAsync(start, buffer), copy);
                Assert.InRange(copied, 1, DiskBytes / 2);
                byte[] contents = new byte[DiskBytes];
                await disk.ReadAsync(0, contents);
                Assert.Equal(contents, await File.ReadAllBytesAsync(copy));
                await silo.Client.ClearBitmapAsync("vm/disk", "backup");
            }
            Assert.Empty(await DirtyMap.ReadAsync(uri, "backup"));
        }
        await server.StopAsync(TimeSpan.FromSeconds(10));
        File.Delete(copy);
    }

    [Fact]
    public async Task A_bitmap_that_is_gone_fails_what_asks_for_it_by_its_name()
    {
        await using ImageSilo silo = await ImageSilo.StartAsync();
        await silo.Client.CreateAsync("vm/disk", new CreateImage { VirtualBytes = DiskBytes });
        string socket = silo.Pool.File("nbd.sock");
        string uri = $"nbd+unix:///backup?socket={socket}";
        var export = new GrainExport(silo.Grains, silo.OpenImages, TimeProvider.System, new ExportSetting("backup", "vm/disk", IsReadOnly: false, "", ["backup"]));
        await using var server = new NbdServer([NbdListenAddress.Unix(socket)], () => [export], new NbdServerOptions());
        await server.StartAsync();
        Assert.NotEqual(0, (await Tool.TryAsync("nbdinfo", "--map=qemu:dirty-bitmap:backup", uri)).ExitCode);
        IOException refused = await Assert.ThrowsAsync<IOException>(() => NbdClient.ConnectUnixAsync(socket, "backup"));
        Assert.Contains("Bitmap 'backup' is not found", refused.Message, StringComparison.Ordinal);
        await silo.Client.AddBitmapAsync("vm/disk", new AddBitmap { Name = "backup" });
        Assert.Contains("qemu:dirty-bitmap:backup", await Tool.RunAsync("nbdinfo", uri), StringComparison.Ordinal);
        await server.StopAsync(TimeSpan.FromSeconds(10));
    }

    /// <summary>Writes, zeros and discards, all over the disk.</summary>
    private static async Task ChangeAsync(Disk disk, Random random, int count)
    {
        for (int i = 0; i < count; i++)
        {
            int bytes = random.Next(1, 100_000);
            long offset = random.Next(DiskBytes - bytes);
            byte[] data = new byte[bytes];
            random.NextBytes(data);
            await (random.Next(6) switch
            {
                0 => disk.WriteZeroesAsync(offset, bytes),
                1 => disk.DiscardAsync(offset, bytes),
                _ => disk.WriteAsync(offset, data),
            });
        }
    }
}
