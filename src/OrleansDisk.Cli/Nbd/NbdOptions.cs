using System.Globalization;
using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Cli.Opening;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Cli.Nbd;

/// <summary>What odisk nbd was asked to do.</summary>
internal sealed record NbdOptions
{
    public const int DefaultPort = 10809;

    /// <summary>The disk that is served.</summary>
    public required DiskRequest Disk { get; init; }

    /// <summary>Path of the unix socket, or null for TCP.</summary>
    public string? SocketPath { get; init; }

    public string Address { get; init; } = "";

    public int Port { get; init; } = DefaultPort;

    public string ExportName { get; init; } = "";

    public string Description { get; init; } = "";

    /// <summary>Bitmaps that clients are told of.</summary>
    public IReadOnlyList<string> Bitmaps { get; init; } = [];

    /// <summary>Whether clients are told in which layer of the chain what they see lies.</summary>
    public bool TellsAllocationDepth { get; init; }

    /// <summary>Clients served at once.</summary>
    public int ClientLimit { get; init; } = 1;

    /// <summary>Whether to go on when the last client has left.</summary>
    public bool IsPersistent { get; init; }

    public bool IsReadOnly { get; init; }

    public bool IsVerbose { get; init; }

    public bool Forks { get; init; }

    public string? PidFile { get; init; }

    /// <exception cref="CommandLineException">A value means nothing.</exception>
    public static NbdOptions From(ParsedOptions options)
    {
        if (options.Operands.Count == 0)
            throw new CommandLineException("No image to serve; give its file name");
        if (options.Operands.Count > 1)
            throw new CommandLineException($"Unexpected argument: {options.Operands[1]}");
        int clients = Number(options.Value("shared"), "number of clients", int.MaxValue) ?? 1;
        return new NbdOptions
        {
            Disk = DiskOf(options),
            SocketPath = options.Value("socket"),
            Address = options.Value("bind") is { } address && address != "0.0.0.0" ? address : "",
            Port = Number(options.Value("port"), "port", 65535) ?? DefaultPort,
            ExportName = options.Value("export-name") ?? "",
            Description = options.Value("description") ?? "",
            Bitmaps = [.. options.Values("bitmap")],
            TellsAllocationDepth = options.Has("allocation-depth"),
            ClientLimit = clients == 0 ? int.MaxValue : clients,
            IsPersistent = options.Has("persistent"),
            IsReadOnly = options.Has("read-only"),
            IsVerbose = options.Has("verbose"),
            Forks = options.Has("fork"),
            PidFile = options.Value("pid-file"),
        };
    }

    private static DiskRequest DiskOf(ParsedOptions options)
    {
        var request = DiskRequest.Of(options.Operands[0], options.Has("image-opts"), options.Value("format"));
        if (options.Value("detect-zeroes") is { } detectZeroes)
            request.Options["detect-zeroes"] = detectZeroes;
        string? cache = options.Has("nocache") ? "none" : options.Value("cache");
        return request with
        {
            Access = options.Has("read-only") ? ImageAccess.Read : ImageAccess.Write,
            Cache = cache is null ? CacheMode.Writeback : CacheMode.Parse(cache, name => $"Invalid cache mode `{name}'"),
            PassDiscard = Discard(options.Value("discard")),
            Secrets = Secrets.Parse(options.Values("object")),
        };
    }

    private static bool Discard(string? value) => value switch
    {
        null or "unmap" or "on" => true,
        "ignore" or "off" => false,
        _ => throw new CommandLineException($"Invalid discard mode '{value}'; use unmap or ignore"),
    };

    private static int? Number(string? text, string what, int limit)
    {
        if (text is null)
            return null;
        return int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int number) && number <= limit
            ? number : throw new CommandLineException($"Invalid {what} '{text}'; use 0 to {limit}");
    }
}
