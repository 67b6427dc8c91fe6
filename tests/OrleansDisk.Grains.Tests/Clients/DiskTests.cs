using OrleansDisk.Abstractions;
using OrleansDisk.Client;
using OrleansDisk.Grains.Tests.Fixtures;

namespace OrleansDisk.Grains.Tests.Clients;

/// <summary>Disks as .NET programs use them.</summary>
public sealed class DiskTests
{
    [Fact]
    public async Task A_disk_is_made_written_flushed_and_read()
    {
        await using ImageSilo silo = await ImageSilo.StartAsync();
        await silo.Client.CreateAsync("vm/disk", new CreateImage { VirtualBytes = 8 << 20 });
        await using Disk disk = await silo.Client.OpenAsync("vm/disk.qcow2");
        Assert.Equal(("vm/disk", 8 << 20, false), (disk.Image, disk.Bytes, disk.IsReadOnly));
        byte[] data = Random(5 << 20, 1);
        await disk.WriteAsync(12345, data, fua: true);
        await disk.WriteZeroesAsync(20_000, 10_000);
        data.AsSpan(20_000 - 12345, 10_000).Clear();
        await disk.FlushAsync();
        byte[] read = new byte[data.Length];
        await disk.ReadAsync(12345, read);
        Assert.True(read.AsSpan().SequenceEqual(data));
        await disk.DiscardAsync(0, disk.Bytes);
        Assert.All(await disk.GetExtentsAsync(0, disk.Bytes), extent => Assert.True(extent.IsZero));
    }

    [Theory]
    [InlineData(1, 1)]
    [InlineData(4, 64)]
    public async Task Requests_of_many_callers_all_end_and_hold(int window, int maxBatchRequests)
    {
        await using ImageSilo silo = await ImageSilo.StartAsync();
        await silo.Pool.CreateAsync("disk", "16M", "-o", "cluster_size=4k");
        var client = new DiskClient(silo.Grains, new DiskClientOptions { Window = window, MaxBatchRequests = maxBatchRequests, MaxBatchBytes = 16 << 10 });
        await using Disk disk = await client.OpenAsync("vm/disk");
        await Task.WhenAll(Enumerable.Range(0, 64).Select(async caller =>
        {
            byte[] data = Random(40_000, caller);
            byte[] read = new byte[data.Length];
            for (int i = 0; i < 4; i++)
            {
                long at = (caller * 4 + i) * 40_960L;
                await disk.WriteAsync(at, data);
                await disk.FlushAsync();
                await disk.ReadAsync(at, read);
                Assert.True(read.AsSpan().SequenceEqual(data));
            }
        }));
    }

    [Fact]
    public async Task A_disk_goes_on_when_its_image_is_closed_meanwhile()
    {
        await using ImageSilo silo = await ImageSilo.StartAsync();
        await silo.Pool.CreateAsync("disk", "1M");
        await using Disk disk = await silo.Client.OpenAsync("vm/disk");
        byte[] data = Random(100_000, 3);
        await disk.WriteAsync(0, data);
        for (int i = 0; i < 5; i++)
        {
            Task[] reads = [.. Enumerable.Range(0, 20).Select(async _ =>
            {
                byte[] read = new byte[data.Length];
                await disk.ReadAsync(0, read);
                Assert.True(read.AsSpan().SequenceEqual(data));
            })];
            await silo.Client.CloseAsync("vm/disk");
            await Task.WhenAll(reads);
        }
        await disk.FlushAsync();
    }

    [Fact]
    public async Task Errors_say_why()
    {
        await using ImageSilo silo = await ImageSilo.StartAsync();
        await silo.Pool.CreateAsync("disk", "1M");
        ImageException missing = await Assert.ThrowsAsync<ImageException>(() => silo.Client.OpenAsync("vm/none"));
        Assert.Equal(SectorError.NotFound, missing.Error);
        await using Disk disk = await silo.Client.OpenAsync("vm/disk", readOnly: true);
        ImageException readOnly = await Assert.ThrowsAsync<ImageException>(() => disk.WriteAsync(0, new byte[1]));
        Assert.Equal(SectorError.ReadOnly, readOnly.Error);
        ImageException outside = await Assert.ThrowsAsync<ImageException>(() => disk.ReadAsync(disk.Bytes, new byte[1]));
        Assert.Equal(SectorError.InvalidArgument, outside.Error);
        await silo.StopAsync();
        ImageException stopped = await Assert.ThrowsAsync<ImageException>(() => disk.ReadAsync(0, new byte[1]));
        Assert.Equal(SectorError.Unavailable, stopped.Error);
    }

    [Fact]
    public async Task A_stream_over_a_disk_reads_writes_and_seeks()
    {
        await using ImageSilo silo = await ImageSilo.StartAsync();
        await silo.Pool.CreateAsync("disk", "1M");
        await using Disk disk = await silo.Client.OpenAsync("vm/disk");
        byte[] data = Random(1 << 20, 9);
        await using Stream stream = disk.AsStream();
        await new MemoryStream(data).CopyToAsync(stream);
        Assert.Equal(stream.Length, stream.Position);
        await stream.FlushAsync();
        await Assert.ThrowsAsync<IOException>(() => stream.WriteAsync(new byte[1]).AsTask());
        stream.Seek(-100, SeekOrigin.End);
        byte[] tail = new byte[200];
        Assert.Equal(100, stream.Read(tail));
        Assert.Equal(data[^100..], tail[..100]);
        stream.Position = 0;
        var copy = new MemoryStream();
        await stream.CopyToAsync(copy);
        Assert.True(copy.ToArray().AsSpan().SequenceEqual(data));
        Assert.Throws<NotSupportedException>(() => stream.SetLength(0));
    }

    private static byte[] Random(int bytes, int seed)
    {
        byte[] data = new byte[bytes];
        new Random(seed).NextBytes(data);
        return data;
    }
}
