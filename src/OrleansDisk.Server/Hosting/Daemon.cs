using System.Reflection;
using System.Runtime.InteropServices;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.DependencyInjection.Extensions;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Console;
using OrleansDisk.Grains;
using OrleansDisk.Server.Configuration;
using OrleansDisk.Server.Exports;

namespace OrleansDisk.Server.Hosting;

/// <summary>The life of the process: host, silo, NBD server, and what it ends with.</summary>
internal static class Daemon
{
    public static string Version =>
        typeof(Daemon).Assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>()!.InformationalVersion.Split('+')[0];

    /// <summary>Runs until a signal comes.</summary>
    /// <exception cref="ConfigurationException">A setting is wrong.</exception>
    public static async Task<ExitCode> RunAsync(ConfigurationManager configuration)
    {
        DaemonOptions options = DaemonConfiguration.Read(configuration);
        using IHost host = Build(configuration, options);
        ILogger logger = host.Services.GetRequiredService<ILoggerFactory>().CreateLogger("odiskd");
        var lifetime = host.Services.GetRequiredService<IHostApplicationLifetime>();
        using CancellationTokenRegistration stopping =
            lifetime.ApplicationStopping.Register(() => ServiceNotification.Send(ServiceNotification.Stopping));
        using var hangUp = PosixSignalRegistration.Create(PosixSignal.SIGHUP, signal =>
        {
            signal.Cancel = true; // the terminal is gone, the images are not: stop as for any other signal
            lifetime.StopApplication();
        });
        try
        {
            await host.StartAsync();
        }
        catch (IOException e)
        {
            Console.Error.WriteLine($"odiskd: {e.Message}");
            await host.StopAsync(); // what did start, the silo above all, ends in order
            return ExitCode.Unavailable;
        }
        catch (OperationCanceledException) when (lifetime.ApplicationStopping.IsCancellationRequested)
        {
            return ExitCode.Success; // a signal came before everything had started
        }
        Log.Started(logger, Version, options.Pools.Count, options.Exports.Count);
        ServiceNotification.Send(ServiceNotification.Ready);
        try
        {
            await host.WaitForShutdownAsync();
        }
        catch (Exception e) when (e is AggregateException or OperationCanceledException)
        {
            Log.StoppedLate(logger, e.Message); // the images tell how it went
        }
        return Judge(host.Services.GetRequiredService<OpenImages>(), logger);
    }

    private static ExitCode Judge(OpenImages images, ILogger logger)
    {
        long bad = images.FailedCloseCount + images.Count;
        if (bad > 0)
        {
            Log.StoppedWithErrors(logger, bad);
            return ExitCode.InputOutput;
        }
        Log.Stopped(logger);
        return ExitCode.Success;
    }

    private static IHost Build(ConfigurationManager configuration, DaemonOptions options)
    {
        var builder = new HostApplicationBuilder(new HostApplicationBuilderSettings
        {
            DisableDefaults = true,
            ApplicationName = "odiskd",
            ContentRootPath = AppContext.BaseDirectory,
            Configuration = configuration,
        });
        AddLogging(builder);
        builder.Services.Configure<ConsoleLifetimeOptions>(console => console.SuppressStatusMessages = true);
        builder.Services.Configure<HostOptions>(host =>
            host.ShutdownTimeout = options.DrainTime + (2 * options.CloseTime) + TimeSpan.FromSeconds(10));
        builder.Services.TryAddSingleton(TimeProvider.System);
        builder.Services.AddSingleton(options);
        builder.Services.AddSingleton<ExportCatalog>();
        builder.UseOrleans(silo => AddGrains(silo, options));
        builder.Services.AddHostedService<NbdService>(); // behind the silo: it starts later and stops earlier
        return builder.Build();
    }

    private static void AddGrains(ISiloBuilder silo, DaemonOptions options)
    {
        // A cluster of several hosts is described by the section Orleans.
        if (!silo.Configuration.GetSection("Orleans:Clustering").Exists())
            silo.UseLocalhostClustering();
        silo.AddImageGrains(images =>
        {
            foreach (PoolSetting pool in options.Pools)
                images.Pools[pool.Name] = new PoolOptions { Directory = pool.Directory, ReadOnly = pool.IsReadOnly };
            images.IdleTime = options.IdleTime;
            images.CloseTime = options.CloseTime;
            images.L2CacheBytes = options.L2CacheBytes;
            images.RefcountCacheBytes = options.RefcountCacheBytes;
        });
    }

    private static void AddLogging(HostApplicationBuilder builder)
    {
        ILoggingBuilder logging = builder.Logging;
        logging.AddConfiguration(builder.Configuration.GetSection("Logging"));
        // The journal adds the time itself and wants the severity in front.
        if (Environment.GetEnvironmentVariable("JOURNAL_STREAM") is not null)
            logging.AddSystemdConsole();
        else
            logging.AddSimpleConsole(console => (console.SingleLine, console.TimestampFormat) = (true, "yyyy-MM-dd HH:mm:ss.fff "));
        logging.Services.Configure<ConsoleLoggerOptions>(console => console.LogToStandardErrorThreshold = LogLevel.Trace);
    }
}
