using System.Globalization;
using System.Text;
using Microsoft.Extensions.Configuration;
using OrleansDisk.Abstractions;
using OrleansDisk.Nbd.Tls;

namespace OrleansDisk.Server.Configuration;

/// <summary>Gathers the settings and checks them.</summary>
internal static class DaemonConfiguration
{
    private const string EnvironmentPrefix = "ODISKD_";

    // NBD protocol, "Conventions": the longest string.
    private const int MaxExportNameBytes = 4096;

    // "Orleans." is the runtime; without the dot it would be OrleansDisk too.
    private static readonly Dictionary<string, string?> Defaults = new()
    {
        ["Logging:LogLevel:Default"] = "Information",
        ["Logging:LogLevel:Microsoft"] = "Warning",
        ["Logging:LogLevel:Microsoft.Extensions.Hosting.Internal.Host"] = "None", // Daemon says what fails, without a stack trace
        ["Logging:LogLevel:Orleans."] = "Error",
        ["Logging:LogLevel:Polly"] = "Error", // Orleans' retries
    };

    /// <exception cref="ConfigurationException">A file can't be read.</exception>
    public static ConfigurationManager Load(CommandLine commandLine)
    {
        var configuration = new ConfigurationManager();
        configuration.AddInMemoryCollection(Defaults);
        Add("appsettings.json", Path.Combine(AppContext.BaseDirectory, "appsettings.json"), isOptional: true);
        if (commandLine.ConfigurationFile is { } file)
            Add("--config", Path.GetFullPath(file), isOptional: false);
        configuration.AddEnvironmentVariables(EnvironmentPrefix);
        configuration.AddInMemoryCollection(commandLine.Settings);
        return configuration;

        void Add(string setting, string path, bool isOptional)
        {
            try
            {
                configuration.AddJsonFile(path, isOptional, reloadOnChange: false);
            }
            catch (Exception e) when (e is IOException or InvalidDataException or UnauthorizedAccessException or FormatException)
            {
                throw new ConfigurationException(setting, e.InnerException is { } inner ? $"{e.Message} {inner.Message}" : e.Message);
            }
        }
    }

    /// <exception cref="ConfigurationException">A setting is wrong.</exception>
    public static DaemonOptions Read(IConfiguration configuration)
    {
        var settings = new SettingsReader(configuration, "");
        settings.Skip("Logging");
        settings.Skip("Orleans");
        SettingsReader listen = settings.Section("Listen");
        var options = new DaemonOptions
        {
            Pools = [.. settings.Sections("Pools").Select(pool => ReadPool(pool.Name, pool.Settings))],
            Exports = [.. settings.Sections("Exports").Select(export => ReadExport(export.Name, export.Settings))],
            UnixSockets = listen.Texts("Unix"),
            TcpAddresses = [.. listen.Texts("Tcp").Select(ReadAddress)],
            Tls = ReadTls(listen.Section("Tls")),
            ExportsPools = settings.Flag("ExportsPools", otherwise: true),
            IdleTime = settings.Time("IdleTime", TimeSpan.FromMinutes(5), least: TimeSpan.FromSeconds(1)),
            DrainTime = settings.Time("DrainTime", TimeSpan.FromSeconds(10), least: TimeSpan.Zero),
            CloseTime = settings.Time("CloseTime", TimeSpan.FromMinutes(5), least: TimeSpan.FromSeconds(1)),
            HandshakeTime = settings.Time("HandshakeTime", TimeSpan.FromSeconds(10), least: TimeSpan.FromSeconds(1)),
            MaxConnections = (int)settings.Number("MaxConnections", 256, 1, 100_000),
            MaxBytesInFlight = settings.Number("MaxBytesInFlight", 512L << 20, 1 << 20, 1L << 40),
            L2CacheBytes = settings.Number("L2CacheBytes", 32L << 20, 1, 1L << 40),
            RefcountCacheBytes = settings.Number("RefcountCacheBytes", 8L << 20, 1, 1L << 40),
        };
        listen.MustEnd();
        settings.MustEnd();
        CheckTogether(options);
        return options;
    }

    /// <summary>Checks settings against each other.</summary>
    private static void CheckTogether(DaemonOptions options)
    {
        if (options.Pools.Count == 0)
            throw new ConfigurationException("Pools", "there is none; give --pool NAME=DIRECTORY");
        if (options.UnixSockets.Count + options.TcpAddresses.Count == 0)
            throw new ConfigurationException("Listen", "there is no address to listen on; give --unix PATH or --tcp HOST:PORT");
        var directories = new Dictionary<string, string>();
        foreach (PoolSetting pool in options.Pools)
        {
            // An image with two keys would have two owners, which keep each other out.
            if (!directories.TryAdd(pool.Directory, pool.Name))
                throw new ConfigurationException($"Pools:{pool.Name}:Directory", $"pool '{directories[pool.Directory]}' has the directory '{pool.Directory}' already");
        }
        foreach (ExportSetting export in options.Exports)
        {
            if (!options.Pools.Any(pool => pool.Name == ImageKey.Parse(export.Image).Pool))
                throw new ConfigurationException($"Exports:{export.Name}:Image", $"there is no pool for '{export.Image}'");
        }
    }

    private static PoolSetting ReadPool(string name, SettingsReader settings)
    {
        string setting = settings.NameOf("Directory");
        if (ImageKey.WhyNotPoolName(name) is { } reason)
            throw new ConfigurationException($"Pools:{name}", $"the name {reason}");
        if (settings.Text("Directory") is not { Length: > 0 } directory)
            throw new ConfigurationException(setting, "it is missing");
        string path = Path.TrimEndingDirectorySeparator(Path.GetFullPath(directory));
        if (!Directory.Exists(path))
            throw new ConfigurationException(setting, $"there is no directory '{path}'");
        var pool = new PoolSetting(name, path, settings.Flag("ReadOnly", otherwise: false));
        settings.MustEnd();
        return pool;
    }

    private static ExportSetting ReadExport(string name, SettingsReader settings)
    {
        if (Encoding.UTF8.GetByteCount(name) > MaxExportNameBytes || name.Contains('\0', StringComparison.Ordinal))
            throw new ConfigurationException($"Exports:{name}", $"the name has a NUL, or more than {MaxExportNameBytes} bytes");
        if (settings.Text("Image") is not { Length: > 0 } text)
            throw new ConfigurationException(settings.NameOf("Image"), "it is missing");
        string image;
        try
        {
            image = ImageKey.Parse(text).ToString();
        }
        catch (ImageException e)
        {
            throw new ConfigurationException(settings.NameOf("Image"), e.Message);
        }
        var export = new ExportSetting(name, image, settings.Flag("ReadOnly", otherwise: false), settings.Text("Description") ?? "",
            [.. settings.Texts("Bitmaps").Distinct()]);
        settings.MustEnd();
        return export;
    }

    private static NbdTlsCredentials? ReadTls(SettingsReader settings)
    {
        string? directory = settings.Text("Directory");
        bool verifiesPeer = settings.Flag("VerifyPeer", otherwise: true);
        settings.MustEnd();
        if (string.IsNullOrEmpty(directory))
            return null;
        try
        {
            return new NbdTlsCredentials(directory, isServer: true, verifiesPeer);
        }
        catch (IOException e)
        {
            throw new ConfigurationException(settings.NameOf("Directory"), e.Message);
        }
    }

    private static TcpSetting ReadAddress(string text)
    {
        int colon = text.LastIndexOf(':');
        string host = colon < 0 ? "" : text[..colon];
        if (host.StartsWith('[') && host.EndsWith(']'))
            host = host[1..^1];
        else if (host.Contains(':', StringComparison.Ordinal))
            colon = -1; // an IPv6 address without brackets: which colon is it?
        if (colon < 0 || !ushort.TryParse(text.AsSpan(colon + 1), NumberStyles.None, CultureInfo.InvariantCulture, out ushort port))
            throw new ConfigurationException("Listen:Tcp", $"'{text}' is not HOST:PORT with a port from 0 to 65535; IPv6 addresses are written [::1]:10809");
        return new TcpSetting(host, port);
    }
}
