using OrleansDisk.Abstractions;
using OrleansDisk.Grains.Tests.Fixtures;
using static OrleansDisk.Grains.Tests.Fixtures.TestBatch;

namespace OrleansDisk.Grains.Tests.Images;

/// <summary>What batches of requests do to an image.</summary>
public sealed class SectorBatchTests
{
    private const int Cluster = 64 << 10;

    [Fact]
    public async Task A_batch_writes_and_the_next_one_reads_it()
    {
        await using ImageSilo silo = await ImageSilo.StartAsync();
        (IImageGrain image, OpenedImage opened) = await OpenNewAsync(silo);
        await new TestBatch(opened, WriteOf(0, Filled(100, 1)), WriteOf(5000, Filled(Cluster, 2), SectorFlags.Fua),
            WriteOf(10 * Cluster, Filled(512, 3)), Of(SectorCommand.Flush)).RunAsync(image);
        var read = new TestBatch(opened, ReadOf(0, 100), ReadOf(5000, Cluster), ReadOf((10 * Cluster) - 1, 514));
        await read.RunAsync(image);
        Assert.Equal(Filled(100, 1), read.Read(0));
        Assert.Equal(Filled(Cluster, 2), read.Read(1));
        Assert.Equal([0, .. Filled(512, 3), 0], read.Read(2));
        await image.CloseAsync();
        await Tool.RunAsync("qemu-io", "-f", "qcow2", "-c", "read -P 1 0 100", "-c", "read -P 2 5000 64k", "-c", "read -P 3 640k 512",
            silo.Pool.File("disk.qcow2"));
    }

    [Fact]
    public async Task Overlapping_writes_of_one_batch_leave_the_bytes_of_one_of_them_everywhere()
    {
        await using ImageSilo silo = await ImageSilo.StartAsync();
        (IImageGrain image, OpenedImage opened) = await OpenNewAsync(silo);
        SectorRequest[] writes = [.. Enumerable.Range(1, 40).Select(i => WriteOf(i * 1000, Filled(3 * Cluster, (byte)i)))];
        await new TestBatch(opened, writes).RunAsync(image);
        var read = new TestBatch(opened, ReadOf(40_000, 2 * Cluster));
        await read.RunAsync(image);
        // Which write wins is the image's choice for each cluster, but every byte is one that was written there.
        Assert.All(read.Read(0), value => Assert.InRange(value, 1, 40));
        Assert.All(read.Read(0).Chunk(512), sector => Assert.InRange(sector.Distinct().Count(), 1, 3));
    }

    [Fact]
    public async Task Zeros_and_discards_read_as_zeros()
    {
        await using ImageSilo silo = await ImageSilo.StartAsync();
        (IImageGrain image, OpenedImage opened) = await OpenNewAsync(silo);
        await new TestBatch(opened, WriteOf(0, Filled(4 * Cluster, 7))).RunAsync(image);
        await new TestBatch(opened, Of(SectorCommand.WriteZeroes, 100, Cluster), Of(SectorCommand.Discard, 2 * Cluster, Cluster),
            Of(SectorCommand.WriteZeroes, 3 * Cluster, Cluster, SectorFlags.KeepAllocated | SectorFlags.Fua)).RunAsync(image);
        var read = new TestBatch(opened, ReadOf(0, 4 * Cluster));
        await read.RunAsync(image);
        Assert.Equal(Filled(100, 7), read.Read(0)[..100]);
        Assert.Equal(new byte[Cluster], read.Read(0)[100..(100 + Cluster)]);
        Assert.Equal(Filled(Cluster - 100, 7), read.Read(0)[(Cluster + 100)..(2 * Cluster)]);
        Assert.Equal(new byte[2 * Cluster], read.Read(0)[(2 * Cluster)..]);
    }

    [Fact]
    public async Task Status_tells_data_zeros_and_holes_apart()
    {
        await using ImageSilo silo = await ImageSilo.StartAsync();
        (IImageGrain image, OpenedImage opened) = await OpenNewAsync(silo);
        await new TestBatch(opened, WriteOf(Cluster, Filled(2 * Cluster, 7))).RunAsync(image);
        await new TestBatch(opened, Of(SectorCommand.WriteZeroes, 2 * Cluster, Cluster, SectorFlags.KeepAllocated)).RunAsync(image);
        var status = new TestBatch(opened, Of(SectorCommand.Status, 0, 4 * Cluster));
        await status.RunAsync(image);
        Assert.Equal(
            [
                new SectorExtent(Cluster, IsHole: true, IsZero: true), new SectorExtent(Cluster, IsHole: false, IsZero: false),
                new SectorExtent(Cluster, IsHole: false, IsZero: true), new SectorExtent(Cluster, IsHole: true, IsZero: true),
            ],
            status.Extents);
        ReadOnlyMemory<SectorExtent> map = await image.MapAsync(0, opened.VirtualBytes);
        Assert.Equal(opened.VirtualBytes, map.ToArray().Sum(extent => extent.Bytes));
        Assert.Equal(4, map.Length);
    }

    [Fact]
    public async Task A_sparse_read_reports_its_holes_and_covers_its_range()
    {
        await using ImageSilo silo = await ImageSilo.StartAsync();
        (IImageGrain image, OpenedImage opened) = await OpenNewAsync(silo);
        await new TestBatch(opened, WriteOf(Cluster, Filled(Cluster, 7))).RunAsync(image);
        var read = new TestBatch(opened, ReadOf(0, 3 * Cluster) with { Flags = SectorFlags.ReportHoles });
        await read.RunAsync(image);
        Assert.Equal([true, false, true], read.Extents.Select(extent => extent.IsZero));
        Assert.Equal(3 * Cluster, read.Extents.Sum(extent => extent.Bytes));
        Assert.Equal(Filled(Cluster, 7), read.Read(0)[Cluster..(2 * Cluster)]);
    }

    [Fact]
    public async Task A_bad_request_fails_alone()
    {
        await using ImageSilo silo = await ImageSilo.StartAsync();
        (IImageGrain image, OpenedImage opened) = await OpenNewAsync(silo);
        var batch = new TestBatch(opened,
            WriteOf(0, Filled(512, 1)),
            ReadOf(opened.VirtualBytes - 1, 2),
            WriteOf(-1, Filled(512, 1)),
            WriteOf(0, Filled(512, 1)) with { Bytes = 513 },
            ReadOf(long.MaxValue, 512),
            Of((SectorCommand)99),
            Of(SectorCommand.Discard, 0, long.MaxValue),
            ReadOf(opened.VirtualBytes, 0));
        await image.SubmitAsync(batch.Message);
        Assert.Equal(
            [SectorError.None, .. Enumerable.Repeat(SectorError.InvalidArgument, 6), SectorError.None],
            batch.Ended.OrderBy(one => one.Key).Select(one => one.Value.Error));
        Assert.Contains("not inside the disk of 4194304 bytes", batch.Ended[1].Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_batch_without_local_completions_is_answered_in_its_response()
    {
        await using ImageSilo silo = await ImageSilo.StartAsync();
        (IImageGrain image, OpenedImage opened) = await OpenNewAsync(silo);
        SectorBatch Message(params SectorRequest[] requests) =>
            new() { Image = opened.Image, Generation = opened.Generation, Requests = requests };
        SectorBatchResult written = await image.SubmitAsync(Message(WriteOf(100, Filled(1000, 9)), Of(SectorCommand.Flush)));
        Assert.Equal([SectorError.None, SectorError.None], written.Results.ToArray().Select(result => result.Error));
        SectorBatchResult read = await image.SubmitAsync(Message(ReadOf(99, 1002), Of(SectorCommand.Status, 0, 2 * Cluster), ReadOf(-1, 1)));
        Assert.Equal([0, .. Filled(1000, 9), 0], read.Results.Span[0].Data.ToArray());
        Assert.Equal([false, true], read.Results.Span[1].Extents.ToArray().Select(extent => extent.IsHole));
        Assert.Equal(SectorError.InvalidArgument, read.Results.Span[2].Error);
        SectorBatchResult tooMuch = await image.SubmitAsync(Message(ReadOf(0, 32 << 20), ReadOf(0, 32 << 20), ReadOf(0, 1)));
        Assert.Equal(SectorError.InvalidArgument, tooMuch.Refusal);
    }

    [Fact]
    public async Task A_batch_whose_sender_gave_up_is_not_started()
    {
        await using ImageSilo silo = await ImageSilo.StartAsync();
        (IImageGrain image, OpenedImage opened) = await OpenNewAsync(silo);
        var batch = new TestBatch(opened, WriteOf(0, Filled(512, 1)));
        Assert.True(batch.Message.TryAbandon());
        await image.SubmitAsync(batch.Message);
        Assert.Empty(batch.Ended);
        var read = new TestBatch(opened, ReadOf(0, 512));
        await read.RunAsync(image);
        Assert.Equal(new byte[512], read.Read(0));
        Assert.False(read.Message.TryAbandon());
    }

    [Fact]
    public async Task Images_of_different_grains_run_side_by_side()
    {
        await using ImageSilo silo = await ImageSilo.StartAsync();
        await Task.WhenAll(Enumerable.Range(0, 4).Select(async number =>
        {
            (IImageGrain image, OpenedImage opened) = await OpenNewAsync(silo, $"disk{number}");
            for (int i = 0; i < 50; i++)
                await new TestBatch(opened, WriteOf(i * 70_000, Filled(5000, (byte)(number + 1)))).RunAsync(image);
            var read = new TestBatch(opened, ReadOf(49 * 70_000, 5000));
            await read.RunAsync(image);
            Assert.Equal(Filled(5000, (byte)(number + 1)), read.Read(0));
        }));
        Assert.Equal(4, silo.OpenImages.Count);
    }

    [Fact]
    public async Task Reads_go_through_to_the_backing_image()
    {
        await using ImageSilo silo = await ImageSilo.StartAsync();
        (IImageGrain below, OpenedImage openedBelow) = await OpenNewAsync(silo, "base");
        await new TestBatch(openedBelow, WriteOf(0, Filled(2 * Cluster, 1))).RunAsync(below);
        await below.CloseAsync();
        IImageGrain image = silo.Image("vm/overlay");
        await image.CreateAsync(new CreateImage { VirtualBytes = 4 << 20, Backing = "vm/base" });
        OpenedImage opened = await image.OpenAsync(new OpenImage());
        await new TestBatch(opened, WriteOf(100, Filled(100, 2))).RunAsync(image);
        var read = new TestBatch(opened, ReadOf(0, 300), Of(SectorCommand.Status, 0, 4 << 20));
        await read.RunAsync(image);
        Assert.Equal([.. Filled(100, 1), .. Filled(100, 2), .. Filled(100, 1)], read.Read(0));
        Assert.Equal([false, false, true], read.Extents.Select(extent => extent.IsHole));
        Assert.Equal("base.qcow2", (await image.DescribeAsync()).BackingFile);
        ImageException locked = await Assert.ThrowsAsync<ImageException>(() => below.OpenAsync(new OpenImage()));
        Assert.Equal(SectorError.Locked, locked.Error);
    }

    private static async Task<(IImageGrain Image, OpenedImage Opened)> OpenNewAsync(ImageSilo silo, string name = "disk")
    {
        IImageGrain image = silo.Image("vm/" + name);
        await image.CreateAsync(new CreateImage { VirtualBytes = 4 << 20 });
        return (image, await image.OpenAsync(new OpenImage()));
    }
}
