using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Orleans.Hosting;

namespace Orleans.TestingHost;

/// <summary>Which silo of a test a configuration delegate is called for.</summary>
public sealed class InProcessTestSiloSpecificOptions
{
    public string SiloName { get; init; } = "Primary";
}

/// <summary>Describes the silo that a test runs against.</summary>
public sealed class InProcessTestClusterBuilder
{
    private readonly List<Action<IHostApplicationBuilder>> _configure = [];

    /// <exception cref="NotSupportedException">More than one silo is asked for.</exception>
    public InProcessTestClusterBuilder(short initialSilosCount)
    {
        if (initialSilosCount != 1)
        {
            throw new NotSupportedException($"{initialSilosCount} silos were asked for, but the embedded grain runtime has one. "
                + "Build with GrainRuntime=Orleans.");
        }
    }

    public InProcessTestClusterBuilder ConfigureHost(Action<IHostApplicationBuilder> configureDelegate)
    {
        _configure.Add(configureDelegate);
        return this;
    }

    public InProcessTestClusterBuilder ConfigureSilo(
        Action<InProcessTestSiloSpecificOptions, ISiloBuilder> configureSiloDelegate) =>
        ConfigureHost(host => host.UseOrleans(silo => configureSiloDelegate(new(), silo)));

    public InProcessTestCluster Build()
    {
        HostApplicationBuilder host = Host.CreateEmptyApplicationBuilder(new HostApplicationBuilderSettings());
        host.UseOrleans(_ => { });
        _configure.ForEach(configure => configure(host));
        return new InProcessTestCluster(host.Build());
    }
}

/// <summary>One silo in the process of the test.</summary>
public sealed class InProcessTestCluster : IDisposable, IAsyncDisposable
{
    private readonly IHost _host;
    private bool _running;

    internal InProcessTestCluster(IHost host) => _host = host;

    public IClusterClient Client => _host.Services.GetRequiredService<IClusterClient>();

    public IServiceProvider GetSiloServiceProvider() => _host.Services;

    public async Task DeployAsync()
    {
        await _host.StartAsync();
        _running = true;
    }

    public async Task StopAllSilosAsync()
    {
        if (_running)
            await _host.StopAsync();
        _running = false;
    }

    public async ValueTask DisposeAsync()
    {
        await StopAllSilosAsync();
        _host.Dispose();
    }

    public void Dispose() => _host.Dispose();
}
