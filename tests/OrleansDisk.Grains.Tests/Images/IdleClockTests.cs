using Microsoft.Extensions.DependencyInjection;
using OrleansDisk.Abstractions;
using OrleansDisk.Grains.Tests.Fixtures;
using static OrleansDisk.Grains.Tests.Fixtures.TestBatch;

namespace OrleansDisk.Grains.Tests.Images;

/// <summary>Idle time by a clock that the test moves. Orleans collects idle grains by the machine's clock.</summary>
public sealed class IdleClockTests
{
    [Fact]
    public async Task An_idle_image_closes_with_everything_written_and_its_lock_released()
    {
        var clock = new HandClock();
        await using ImageSilo silo = await ImageSilo.StartAsync(
            options => options.IdleTime = TimeSpan.FromMinutes(3), host => host.Services.AddSingleton<TimeProvider>(clock));
        await silo.Pool.CreateAsync("disk", "1M");
        IImageGrain image = silo.Image("vm/disk");
        OpenedImage opened = await image.OpenAsync(new OpenImage());
        await new TestBatch(opened, WriteOf(70_000, Filled(1000, 5))).RunAsync(image);
        clock.Advance(TimeSpan.FromMinutes(2));
        Assert.Equal(opened.Generation, await image.KeepOpenAsync());
        clock.Advance(TimeSpan.FromMinutes(2));
        Assert.Equal(1, silo.OpenImages.Count);
        clock.Advance(TimeSpan.FromMinutes(2));
        await Eventually.TrueAsync(() => silo.OpenImages.Count == 0 || Passes(clock), "the image closed");
        await Tool.RunAsync("qemu-io", "-f", "qcow2", "-c", "read -P 5 70000 1000", "-c", "write 0 512", silo.Pool.File("disk.qcow2"));
        Assert.True((await image.OpenAsync(new OpenImage { Previous = opened.Generation })).ContinuesPrevious);
    }

    /// <summary>Time goes on: when the collector last looked, the image may have been at its upkeep.</summary>
    private static bool Passes(HandClock clock)
    {
        clock.Advance(TimeSpan.FromSeconds(30));
        return false;
    }
}
