using Microsoft.Extensions.DependencyInjection;
using Orleans.TestingHost;

namespace OrleansDisk.Grains.Tests.Runtime;

/// <summary>One silo of whichever grain runtime the build has, in the process of the test.</summary>
public class RunningSilo : IAsyncLifetime
{
    private readonly InProcessTestCluster _cluster;

    public RunningSilo() : this(_ => { }) { }

    protected RunningSilo(Action<ISiloBuilder> configure)
    {
        var builder = new InProcessTestClusterBuilder(1);
        builder.ConfigureSilo((_, silo) =>
        {
            silo.Services.AddSingleton(Journal);
            configure(silo);
        });
        _cluster = builder.Build();
    }

    public Journal Journal { get; } = new();

    /// <summary>The silo's own factory: its calls stay in the process, so that immutable values are shared.</summary>
    public IGrainFactory Grains => _cluster.GetSiloServiceProvider().GetRequiredService<IGrainFactory>();

    public Task InitializeAsync() => _cluster.DeployAsync();

    public Task StopAsync() => _cluster.StopAllSilosAsync();

    public async Task DisposeAsync() => await _cluster.DisposeAsync();
}
