using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.DependencyInjection.Extensions;
using Orleans;
using Orleans.Hosting;
using Orleans.Runtime;

namespace Microsoft.Extensions.Hosting;

/// <summary>Adds a silo to a host. It starts and stops with the host.</summary>
public static class OrleansSiloGenericHostExtensions
{
    /// <exception cref="NotSupportedException">The configuration asks for a cluster.</exception>
    public static IHostApplicationBuilder UseOrleans(this IHostApplicationBuilder hostAppBuilder,
        Action<ISiloBuilder> configureDelegate)
    {
        AddSilo(hostAppBuilder.Services, hostAppBuilder.Configuration, configureDelegate);
        return hostAppBuilder;
    }

    /// <inheritdoc cref="UseOrleans(IHostApplicationBuilder, Action{ISiloBuilder})"/>
    public static HostApplicationBuilder UseOrleans(this HostApplicationBuilder hostAppBuilder,
        Action<ISiloBuilder> configureDelegate)
    {
        AddSilo(hostAppBuilder.Services, hostAppBuilder.Configuration, configureDelegate);
        return hostAppBuilder;
    }

    /// <inheritdoc cref="UseOrleans(IHostApplicationBuilder, Action{ISiloBuilder})"/>
    public static IHostBuilder UseOrleans(this IHostBuilder hostBuilder, Action<ISiloBuilder> configureDelegate) =>
        hostBuilder.ConfigureServices((host, services) => AddSilo(services, host.Configuration, configureDelegate));

    private static void AddSilo(IServiceCollection services, IConfiguration configuration, Action<ISiloBuilder> configure)
    {
        if (configuration["Orleans:Clustering:ProviderType"] is { } provider and not "Development")
        {
            throw new NotSupportedException($"Orleans:Clustering:ProviderType is {provider}, but this build has the embedded "
                + "grain runtime, which is one process and no cluster. Build with GrainRuntime=Orleans.");
        }
        services.AddLogging().AddOptions();
        services.TryAddSingleton(TimeProvider.System);
        services.TryAddSingleton<Silo>();
        services.TryAddSingleton<IClusterClient>(provider => provider.GetRequiredService<Silo>());
        services.TryAddSingleton<IGrainFactory>(provider => provider.GetRequiredService<Silo>());
        services.TryAddSingleton<SiloLifecycle>();
        services.TryAddEnumerable(ServiceDescriptor.Singleton<IHostedService, SiloLifecycle>(
            provider => provider.GetRequiredService<SiloLifecycle>()));
        configure(new SiloBuilder(services, configuration));
    }
}
