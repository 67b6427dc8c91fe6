using Microsoft.Extensions.DependencyInjection;
using Orleans.TestingHost;
using OrleansDisk.Abstractions;
using OrleansDisk.Client;

namespace OrleansDisk.Grains.Tests.Fixtures;

/// <summary>A silo with image grains and one pool, "vm". When it is done with, the images are checked.</summary>
internal sealed class ImageSilo : IAsyncDisposable
{
    private readonly InProcessTestCluster _cluster;

    private ImageSilo(Action<ImageGrainOptions>? configure, Action<ISiloBuilder>? configureSilo)
    {
        var builder = new InProcessTestClusterBuilder(1);
        builder.ConfigureSilo((_, silo) =>
        {
            silo.AddImageGrains(options =>
            {
                options.Pools["vm"] = new PoolOptions { Directory = Pool.Path };
                options.Pools["golden"] = new PoolOptions { Directory = Pool.Path, ReadOnly = true };
                configure?.Invoke(options);
            });
            configureSilo?.Invoke(silo);
        });
        _cluster = builder.Build();
    }

    public PoolDirectory Pool { get; } = new();

    /// <summary>The silo's own factory: its calls stay in the process.</summary>
    public IGrainFactory Grains => _cluster.GetSiloServiceProvider().GetRequiredService<IGrainFactory>();

    /// <summary>What the silo holds; can still be asked when it has stopped.</summary>
    public OpenImages OpenImages { get; private set; } = null!;

    public DiskClient Client => new(Grains);

    public IImageGrain Image(string key) => Grains.GetGrain<IImageGrain>(key);

    public static async Task<ImageSilo> StartAsync(
        Action<ImageGrainOptions>? configure = null, Action<ISiloBuilder>? configureSilo = null)
    {
        var silo = new ImageSilo(configure, configureSilo);
        await silo._cluster.DeployAsync();
        silo.OpenImages = silo._cluster.GetSiloServiceProvider().GetRequiredService<OpenImages>();
        return silo;
    }

    public Task StopAsync() => _cluster.StopAllSilosAsync();

    public async ValueTask DisposeAsync()
    {
        using PoolDirectory pool = Pool;
        await _cluster.DisposeAsync();
        await pool.CheckAllAsync();
    }
}
