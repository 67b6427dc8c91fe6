using Microsoft.Extensions.DependencyInjection;
using OrleansDisk.Abstractions;
using OrleansDisk.Grains.Tests.Fixtures;
using static OrleansDisk.Grains.Tests.Fixtures.TestBatch;

namespace OrleansDisk.Grains.Tests.Images;

/// <summary>When an image is open, who else can have it, and what of it outlives a closing.</summary>
public sealed class ImageLifetimeTests
{
    [Fact]
    public async Task While_an_image_is_open_others_get_the_words_of_QEMU()
    {
        await using ImageSilo silo = await ImageSilo.StartAsync();
        await silo.Pool.CreateAsync("disk", "1M");
        string path = silo.Pool.File("disk.qcow2");
        IImageGrain image = silo.Image("vm/disk");
        await image.OpenAsync(new OpenImage());
        (int exitCode, string output) = await Tool.TryAsync("qemu-io", "-f", "qcow2", "-c", "write 0 512", path);
        Assert.NotEqual(0, exitCode);
        Assert.Contains("Failed to get \"write\" lock", output, StringComparison.Ordinal);
        ImageException other = await Assert.ThrowsAsync<ImageException>(() => silo.Image("golden/disk").OpenAsync(new OpenImage()));
        Assert.Equal(SectorError.Locked, other.Error);
        await image.CloseAsync();
        await Tool.RunAsync("qemu-io", "-f", "qcow2", "-c", "write 0 512", path);
    }

    [Fact]
    public async Task An_image_that_someone_else_writes_is_refused_with_the_words_of_QEMU()
    {
        await using ImageSilo silo = await ImageSilo.StartAsync();
        await silo.Pool.CreateAsync("disk", "1M");
        await using (OrleansDisk.Qcow2.Io.LocalBlockFile.Open(silo.Pool.File("disk.qcow2"), OrleansDisk.Qcow2.Io.ImageAccess.Write))
        {
            ImageException locked = await Assert.ThrowsAsync<ImageException>(() => silo.Image("vm/disk").OpenAsync(new OpenImage()));
            Assert.Equal(SectorError.Locked, locked.Error);
            Assert.Contains("Failed to get \"write\" lock", locked.Message, StringComparison.Ordinal);
            Assert.Contains($"(process {Environment.ProcessId})", locked.Message, StringComparison.Ordinal);
            Assert.Equal(1 << 20, (await silo.Image("vm/disk").DescribeAsync()).VirtualBytes);
        }
        await silo.Image("vm/disk").OpenAsync(new OpenImage());
    }

    [Fact]
    public async Task A_batch_for_an_earlier_opening_is_refused_and_touches_nothing()
    {
        await using ImageSilo silo = await ImageSilo.StartAsync();
        await silo.Pool.CreateAsync("disk", "1M");
        IImageGrain image = silo.Image("vm/disk");
        OpenedImage first = await image.OpenAsync(new OpenImage());
        await image.CloseAsync();
        var closed = new TestBatch(first, WriteOf(0, Filled(512, 1)));
        Assert.Equal(SectorError.StaleGeneration, (await image.SubmitAsync(closed.Message)).Refusal);
        OpenedImage second = await image.OpenAsync(new OpenImage { Previous = first.Generation });
        Assert.True(second.ContinuesPrevious);
        Assert.NotEqual(first.Generation, second.Generation);
        var late = new TestBatch(first, WriteOf(0, Filled(512, 1)));
        SectorBatchResult refused = await image.SubmitAsync(late.Message);
        Assert.Equal((SectorError.StaleGeneration, second.Generation), (refused.Refusal, refused.Generation));
        Assert.Empty(late.Ended);
        var read = new TestBatch(second, ReadOf(0, 512));
        await read.RunAsync(image);
        Assert.Equal(new byte[512], read.Read(0));
        Assert.False((await image.OpenAsync(new OpenImage { Previous = Guid.NewGuid() })).ContinuesPrevious);
    }

    [Fact]
    public async Task A_batch_for_another_image_is_refused()
    {
        await using ImageSilo silo = await ImageSilo.StartAsync();
        await silo.Pool.CreateAsync("a", "1M");
        await silo.Pool.CreateAsync("b", "1M");
        OpenedImage a = await silo.Image("vm/a").OpenAsync(new OpenImage());
        await silo.Image("vm/b").OpenAsync(new OpenImage());
        SectorBatchResult refused = await silo.Image("vm/b").SubmitAsync(new TestBatch(a, ReadOf(0, 512)).Message);
        Assert.Equal((SectorError.InvalidArgument, "a batch for 'vm/a' came to 'vm/b'"), (refused.Refusal, refused.Message));
    }

    [Fact]
    public async Task An_image_opened_for_reading_is_opened_anew_for_the_first_writer()
    {
        await using ImageSilo silo = await ImageSilo.StartAsync();
        await silo.Pool.CreateAsync("disk", "1M");
        IImageGrain image = silo.Image("vm/disk");
        OpenedImage reader = await image.OpenAsync(new OpenImage { ReadOnly = true });
        Assert.True(reader.IsReadOnly);
        var write = new TestBatch(reader, WriteOf(0, Filled(512, 1)), Of(SectorCommand.Flush));
        await image.SubmitAsync(write.Message);
        Assert.Equal([SectorError.ReadOnly, SectorError.None], write.Ended.OrderBy(one => one.Key).Select(one => one.Value.Error));
        OpenedImage writer = await image.OpenAsync(new OpenImage());
        Assert.False(writer.IsReadOnly);
        Assert.Equal(SectorError.StaleGeneration, (await image.SubmitAsync(new TestBatch(reader, ReadOf(0, 512)).Message)).Refusal);
        OpenedImage again = await image.OpenAsync(new OpenImage { ReadOnly = true, Previous = reader.Generation });
        Assert.Equal((writer.Generation, true), (again.Generation, again.ContinuesPrevious));
        Assert.True((await silo.Image("golden/disk").DescribeAsync()).VirtualBytes > 0);
    }

    [Fact]
    public async Task Closing_under_load_loses_nothing_that_completed()
    {
        const int writers = 8;
        const int slot = 9000;
        await using ImageSilo silo = await ImageSilo.StartAsync();
        await silo.Pool.CreateAsync("disk", "16M");
        IImageGrain image = silo.Image("vm/disk");
        byte[] expected = new byte[writers * 100 * slot];
        Task[] load = [.. Enumerable.Range(0, writers).Select(WriteAsync)];
        for (int i = 0; i < 10; i++)
        {
            await image.CloseAsync();
            await image.OpenAsync(new OpenImage());
        }
        await Task.WhenAll(load);
        OpenedImage last = await image.OpenAsync(new OpenImage());
        var read = new TestBatch(last, ReadOf(0, expected.Length));
        await read.RunAsync(image);
        Assert.True(read.Read(0).AsSpan().SequenceEqual(expected), "what completed is not there");
        Assert.Equal(0, silo.OpenImages.FailedCloseCount);

        async Task WriteAsync(int writer)
        {
            OpenedImage opened = await image.OpenAsync(new OpenImage());
            for (int i = 0; i < 100; i++)
            {
                int at = ((i * writers) + writer) * slot;
                byte[] data = Filled(slot, (byte)(1 + ((i + writer) % 250)));
                data.CopyTo(expected, at);
                while ((await image.SubmitAsync(new TestBatch(opened, WriteOf(at, data)).Message)).Refusal == SectorError.StaleGeneration)
                    opened = await image.OpenAsync(new OpenImage());
            }
        }
    }

    [Fact]
    public async Task An_image_that_has_stopped_is_opened_anew_and_its_generation_is_not_continued()
    {
        await using ImageSilo silo = await ImageSilo.StartAsync();
        await silo.Pool.CreateAsync("bad", "1M");
        string path = silo.Pool.File("bad.qcow2");
        await Damage.MisalignSecondClusterAsync(path);
        IImageGrain image = silo.Image("vm/bad");
        OpenedImage opened = await image.OpenAsync(new OpenImage());
        var batch = new TestBatch(opened, ReadOf(64 << 10, 512), ReadOf(0, 512));
        await image.SubmitAsync(batch.Message);
        Assert.Equal((SectorError.InputOutput, SectorError.None), (batch.Ended[0].Error, batch.Ended[1].Error));
        var stopped = new TestBatch(opened, WriteOf(0, Filled(512, 1)), Of(SectorCommand.Flush));
        await image.SubmitAsync(stopped.Message);
        Assert.Equal([SectorError.Failed, SectorError.Failed], stopped.Ended.Select(one => one.Value.Error));
        OpenedImage again = await image.OpenAsync(new OpenImage { ReadOnly = true, Previous = opened.Generation });
        Assert.False(again.ContinuesPrevious);
        Assert.NotEqual(opened.Generation, again.Generation);
        Assert.Equal(1, silo.OpenImages.FailedCloseCount);
        await Assert.ThrowsAsync<ImageException>(() => image.OpenAsync(new OpenImage())); // it is marked corrupt now
        Assert.True((await image.DescribeAsync()).IsCorrupt);
        await image.CloseAsync();
        File.Delete(path);
    }

    [Fact]
    public async Task Stopping_the_silo_closes_every_image()
    {
        await using ImageSilo silo = await ImageSilo.StartAsync();
        for (int i = 0; i < 3; i++)
        {
            await silo.Pool.CreateAsync($"disk{i}", "1M");
            IImageGrain image = silo.Image($"vm/disk{i}");
            OpenedImage opened = await image.OpenAsync(new OpenImage());
            await new TestBatch(opened, WriteOf(0, Filled(100_000, 8))).RunAsync(image);
        }
        Assert.Equal(3, silo.OpenImages.Count);
        await silo.StopAsync();
        Assert.Equal((0, 0L), (silo.OpenImages.Count, silo.OpenImages.FailedCloseCount));
        for (int i = 0; i < 3; i++)
            await Tool.RunAsync("qemu-io", "-f", "qcow2", "-c", "read -P 8 0 100000", silo.Pool.File($"disk{i}.qcow2"));
    }
}
