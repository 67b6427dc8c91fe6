using System.Globalization;
using System.Text;
using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Cli.Commands;
using OrleansDisk.Cli.Opening;
using OrleansDisk.Nbd.Tls;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Cli.Nbd;

/// <summary>What odisk nbd was asked to do.</summary>
internal sealed record NbdOptions
{
    public const int DefaultPort = 10809;

    /// <summary>The longest string of the protocol (NBD protocol, "Values").</summary>
    private const int MaxTextBytes = 4096;

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

    /// <summary>First byte of the disk that is served.</summary>
    public long OffsetBytes { get; init; }

    /// <summary>What clients must use TLS with, or null.</summary>
    public NbdTlsCredentials? Tls { get; init; }

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
        if (options.Value("connect") is { } device)
            throw KernelDevice.CanNotConnect(device);
        return new NbdOptions
        {
            Disk = DiskOf(options),
            SocketPath = options.Value("socket"),
            Address = options.Value("bind") is { } address && address != "0.0.0.0" ? address : "",
            Port = PortOf(options),
            OffsetBytes = OffsetOf(options.Value("offset")),
            ExportName = Text(options.Value("export-name"), "export name"),
            Description = Text(options.Value("description"), "export description"),
            Bitmaps = [.. options.Values("bitmap")],
            TellsAllocationDepth = options.Has("allocation-depth"),
            Tls = TlsOf(options, isServer: true),
            ClientLimit = ClientsOf(options.Value("shared")),
            IsPersistent = options.Has("persistent"),
            IsReadOnly = options.Has("read-only"),
            IsVerbose = options.Has("verbose"),
            Forks = options.Has("fork"),
            PidFile = options.Value("pid-file"),
        };
    }

    /// <summary>The credentials of --tls-creds, or null.</summary>
    public static NbdTlsCredentials? TlsOf(ParsedOptions options, bool isServer)
    {
        if (options.Value("tls-creds") is not { } id)
            return null;
        try
        {
            return Secrets.Parse(options.Values("object")).FindTls(id, isServer);
        }
        catch (CommandFailedException e)
        {
            throw new CommandFailedException($"Failed to get TLS creds: {e.Message}");
        }
    }

    /// <summary>The TCP port.</summary>
    public static int PortOf(ParsedOptions options)
    {
        if (options.Value("port") is not { } text)
            return DefaultPort;
        return int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int port) && port <= ushort.MaxValue
            ? port : throw new CommandLineException($"Invalid port '{text}'; use 0 to {ushort.MaxValue}");
    }

    private static DiskRequest DiskOf(ParsedOptions options)
    {
        var request = DiskRequest.Of(options.Operands[0], options.Has("image-opts"), options.Value("format"));
        bool passDiscard = Discard(options.Value("discard"));
        if (options.Value("detect-zeroes") is { } detectZeroes)
            request.Options["detect-zeroes"] = DetectZeroes(detectZeroes, passDiscard);
        if (options.Value("aio") is { } aio and not ("threads" or "native" or "io_uring"))
            throw new CommandFailedException($"Invalid aio mode '{aio}'");
        SnapshotSelector? snapshot = SnapshotOf(options);
        return request with
        {
            Access = options.Has("read-only") || snapshot is not null ? ImageAccess.Read : ImageAccess.Write,
            Snapshot = snapshot,
            IsTemporary = options.Has("snapshot"),
            Cache = CacheOf(options),
            PassDiscard = passDiscard,
            Secrets = Secrets.Parse(options.Values("object")),
        };
    }

    private static SnapshotSelector? SnapshotOf(ParsedOptions options)
    {
        if (options.Value("load-snapshot") is not { } text)
            return null;
        if (options.Has("snapshot"))
            throw new CommandFailedException("Failed to load snapshot: Can't find snapshot in a temporary file; use --load-snapshot without --snapshot");
        try
        {
            return SnapshotView.Parse(text);
        }
        catch (CommandFailedException e)
        {
            throw new CommandFailedException(e.Message, $"Failed in parsing snapshot param `{text}'");
        }
    }

    private static CacheMode CacheOf(ParsedOptions options)
    {
        if (options.Values("cache").Count() + (options.Has("nocache") ? 1 : 0) > 1)
            throw new CommandFailedException("-n and --cache can only be specified once");
        return options.Has("nocache") ? CacheMode.Parse("none", name => name)
            : CacheMode.Parse(options.Value("cache") ?? "writeback", name => $"Invalid cache mode `{name}'");
    }

    private static bool Discard(string? value) => value switch
    {
        null or "unmap" or "on" => true,
        "ignore" or "off" => false,
        _ => throw new CommandFailedException($"Invalid discard mode `{value}'"),
    };

    private static string DetectZeroes(string value, bool passDiscard) => value switch
    {
        "off" or "on" => value,
        "unmap" => passDiscard ? value
            : throw new CommandFailedException("setting detect-zeroes to unmap is not allowed without setting discard operation to unmap"),
        _ => throw new CommandFailedException($"Failed to parse detect_zeroes mode: invalid parameter value: {value}"),
    };

    /// <summary>A number of bytes, decimal or after 0x.</summary>
    private static long OffsetOf(string? text)
    {
        if (text is null)
            return 0;
        bool isHexadecimal = text.StartsWith("0x", StringComparison.OrdinalIgnoreCase);
        return long.TryParse(isHexadecimal ? text.AsSpan(2) : text, isHexadecimal ? NumberStyles.AllowHexSpecifier : NumberStyles.None,
            CultureInfo.InvariantCulture, out long offset) && offset >= 0 ? offset : throw new CommandFailedException($"Invalid offset '{text}'");
    }

    /// <summary>How many clients at once; 0 is any number.</summary>
    private static int ClientsOf(string? text)
    {
        if (text is null)
            return 1;
        if (!int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int count))
            throw new CommandFailedException($"Invalid shared device number '{text}'");
        return count == 0 ? int.MaxValue : count;
    }

    /// <summary>A string of the protocol, which has a limit for them.</summary>
    private static string Text(string? text, string what) => text is null ? ""
        : Encoding.UTF8.GetByteCount(text) <= MaxTextBytes ? text : throw new CommandFailedException($"{what} '{text}' too long");
}
