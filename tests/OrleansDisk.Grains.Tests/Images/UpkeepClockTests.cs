using Microsoft.Extensions.DependencyInjection;
using OrleansDisk.Abstractions;
using OrleansDisk.Grains.Tests.Fixtures;
using OrleansDisk.Qcow2.Io;
using static OrleansDisk.Grains.Tests.Fixtures.TestBatch;

namespace OrleansDisk.Grains.Tests.Images;

/// <summary>What the grain does for its image by a clock that the test moves.</summary>
public sealed class UpkeepClockTests
{
    [Fact]
    public async Task Discarded_space_is_back_on_the_host_within_ten_seconds_though_nobody_flushes()
    {
        var clock = new HandClock();
        await using ImageSilo silo = await ImageSilo.StartAsync(configureSilo: host => host.Services.AddSingleton<TimeProvider>(clock));
        await silo.Pool.CreateAsync("disk", "64M");
        string file = silo.Pool.File("disk.qcow2");
        IImageGrain image = silo.Image("vm/disk");
        OpenedImage opened = await image.OpenAsync(new OpenImage());
        const int bytes = 32 << 20;
        await new TestBatch(opened, WriteOf(0, Filled(bytes, 1)), WriteOf(bytes, Filled(65536, 2))).RunAsync(image);
        await new TestBatch(opened, Of(SectorCommand.Flush)).RunAsync(image);
        long before = FileSpace.AllocatedBytes(file)!.Value;
        await new TestBatch(opened, Of(SectorCommand.Discard, 0, bytes)).RunAsync(image);
        clock.Advance(TimeSpan.FromSeconds(5));
        await Eventually.TrueAsync(() => before - FileSpace.AllocatedBytes(file)!.Value >= bytes * 95L / 100, "95 % of the space is back");
        await new TestBatch(opened, Of(SectorCommand.Flush)).RunAsync(image);
        await image.CloseAsync();
        await Tool.RunAsync("qemu-io", "-f", "qcow2", "-c", "read -P 0 0 32M", "-c", "read -P 2 32M 64k", file);
    }
}
