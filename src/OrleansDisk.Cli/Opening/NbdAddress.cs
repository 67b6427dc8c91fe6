using System.Globalization;
using System.Net;
using System.Net.Sockets;
using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Cli.Opening.Drivers;
using OrleansDisk.Nbd.Client;
using OrleansDisk.Nbd.Tls;
using OrleansDisk.Qcow2.Data;

namespace OrleansDisk.Cli.Opening;

/// <summary>Where an NBD export is, and how to connect to it: by one of its names, or by the options of the nbd driver.</summary>
internal sealed record NbdAddress
{
    private const int DefaultPort = 10809;
    private const string Allocation = "base:allocation";
    private const string AllocationDepth = "qemu:allocation-depth";

    /// <summary>The unix socket, or null for TCP.</summary>
    public string? SocketPath { get; private init; }

    public string Host { get; private init; } = "localhost";

    public int Port { get; private init; } = DefaultPort;

    public string Export { get; private init; } = "";

    /// <summary>The metadata context that is taken for the map of the disk (x-dirty-bitmap), or null for that of its allocation.</summary>
    private string? MapContext { get; init; }

    /// <summary>What to use TLS with, or null.</summary>
    private NbdTlsCredentials? Tls { get; init; }

    /// <summary>The name that the server's certificate must have, or null: the host's.</summary>
    private string? TlsHostName { get; init; }

    /// <summary>How long to try to connect.</summary>
    private TimeSpan OpenTimeout { get; init; }

    /// <summary>How long requests wait for a new connection when one has broken.</summary>
    private TimeSpan ReconnectDelay { get; init; }

    /// <summary>Reads a name, nbd://, nbd+unix://, nbds://, nbds+unix:// or nbd:, and takes the options of the driver.</summary>
    /// <exception cref="CommandFailedException">It leads nowhere.</exception>
    public static NbdAddress Take(string? name, BlockOptions options, Secrets secrets)
    {
        NbdAddress address = name is null ? FromOptions(options)
            : name.Contains("://", StringComparison.Ordinal) ? FromUri(name) : FromOldName(name);
        address = address with
        {
            Tls = options.Take("tls-creds") is { } id ? secrets.FindTls(id, isServer: false) : address.Tls,
            TlsHostName = options.Take("tls-hostname") ?? address.TlsHostName,
            MapContext = options.Take("x-dirty-bitmap"),
            OpenTimeout = TakeSeconds(options, "open-timeout"),
            ReconnectDelay = TakeSeconds(options, "reconnect-delay"),
        };
        options.RefuseRestOfProtocol("nbd");
        return address;
    }

    /// <summary>Connects to the export.</summary>
    /// <exception cref="CommandFailedException">There is no server, or it does not have the export.</exception>
    public async Task<IWritableDisk> OpenAsync(bool isReadOnly)
    {
        var options = new NbdClientOptions
        {
            Server = SocketPath is not null ? new UnixDomainSocketEndPoint(SocketPath) : new DnsEndPoint(Host, Port),
            Export = Export,
            MetaContext = MapContext ?? Allocation,
            Tls = Tls,
            TlsHostName = TlsHostName,
        };
        try
        {
            NbdClient client = await NbdConnection.ConnectAsync(options, OpenTimeout);
            if (MapContext is null || client.HasBlockStatus)
            {
                var connection = new NbdConnection(options, client, ReconnectDelay);
                var disk = new NbdDisk(connection, ToString(), isReadOnly) { TellsDepth = MapContext == AllocationDepth };
                return client.MinBlockBytes > 1 ? new WholeBlocksDisk(disk, client.MinBlockBytes) : disk;
            }
            await client.DisposeAsync();
        }
        catch (IOException e)
        {
            throw new CommandFailedException(e.Message);
        }
        throw new CommandFailedException($"Could not open image: Invalid argument (the export has no context '{MapContext}')");
    }

    /// <summary>The address as a URI.</summary>
    public override string ToString() => SocketPath is null ? $"nbd://{Host}:{Port}{(Export.Length > 0 ? "/" + Export : "")}"
        : $"nbd+unix://{(Export.Length > 0 ? "/" + Export : "")}?socket={SocketPath}";

    private static NbdAddress FromUri(string name)
    {
        string scheme = name[..name.IndexOf(':', StringComparison.Ordinal)];
        bool isUnix = scheme.EndsWith("+unix", StringComparison.Ordinal);
        if (!Uri.TryCreate(name, UriKind.Absolute, out Uri? uri) || (isUnix && uri.Host.Length > 0))
            throw new CommandFailedException("No valid URL specified");
        var query = uri.Query.TrimStart('?').Split('&', StringSplitOptions.RemoveEmptyEntries)
            .Select(pair => pair.Split('=', 2)).ToLookup(pair => pair[0], pair => Uri.UnescapeDataString(pair[^1]))
            .ToDictionary(values => values.Key, values => values.Last());
        bool hasSocket = query.Remove("socket", out string? socket);
        NbdTlsCredentials? tls = scheme.StartsWith("nbds", StringComparison.Ordinal) ? TakeTls(query) : null;
        query.Remove("tls-hostname", out string? hostName);
        if (hasSocket != isUnix || query.Count > 0 || (tls is null && hostName is not null))
            throw new CommandFailedException("No valid URL specified");
        return new NbdAddress
        {
            SocketPath = socket,
            Host = uri.DnsSafeHost,
            Port = uri.Port > 0 ? uri.Port : DefaultPort,
            Export = Uri.UnescapeDataString(uri.AbsolutePath.TrimStart('/')),
            Tls = tls,
            TlsHostName = hostName,
        };
    }

    /// <summary>The credentials of nbds://, whose names are those of libnbd.</summary>
    private static NbdTlsCredentials TakeTls(Dictionary<string, string> query)
    {
        if (!query.Remove("tls-certificates", out string? directory))
            throw new CommandFailedException("No valid URL specified; nbds:// needs ?tls-certificates=DIRECTORY");
        bool verifiesPeer = !query.Remove("tls-verify-peer", out string? verify) || verify is not ("false" or "no" or "0" or "off");
        try
        {
            return new NbdTlsCredentials(directory, isServer: false, verifiesPeer);
        }
        catch (IOException e)
        {
            throw new CommandFailedException(e.Message);
        }
    }

    private static NbdAddress FromOldName(string name)
    {
        const string exportMark = ":exportname=";
        string server = name["nbd:".Length..];
        string export = "";
        if (server.IndexOf(exportMark, StringComparison.Ordinal) is >= 0 and int mark)
            (server, export) = (server[..mark], server[(mark + exportMark.Length)..]);
        if (server.Length == 0)
            throw new CommandFailedException("NBD server address missing");
        if (server.StartsWith("unix:", StringComparison.Ordinal))
            return new NbdAddress { SocketPath = server["unix:".Length..], Export = export };
        int colon = server.LastIndexOf(':');
        if (colon < 0)
            throw new CommandFailedException($"error parsing address '{server}'");
        string host = server[..colon];
        if (host is ['[', .. var bare, ']'])
            host = bare;
        return new NbdAddress { Host = host.Length > 0 ? host : "localhost", Port = ParsePort(server[(colon + 1)..]), Export = export };
    }

    private static NbdAddress FromOptions(BlockOptions options)
    {
        BlockOptions server = options.TakeChild("server");
        string? Take(string name) => server.Take(name) ?? options.Take(name);
        string? type = Take("type");
        string? path = Take("path");
        string? host = Take("host");
        string? port = Take("port");
        string export = options.Take("export") ?? "";
        string? missing = type switch
        {
            null => path is null && host is null ? throw new CommandFailedException("NBD server address missing") : null,
            "unix" => path is null ? "path" : null,
            "inet" => host is null ? "host" : port is null ? "port" : null,
            _ => throw new CommandFailedException($"Parameter 'type' does not accept value '{type}'; use unix or inet"),
        };
        if (missing is not null)
            throw new CommandFailedException($"Parameter '{missing}' is missing");
        return path is not null ? new NbdAddress { SocketPath = path, Export = export }
            : new NbdAddress { Host = host!, Port = port is null ? DefaultPort : ParsePort(port), Export = export };
    }

    private static TimeSpan TakeSeconds(BlockOptions options, string name) => options.Take(name) is not { } text ? TimeSpan.Zero
        : uint.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out uint seconds) ? TimeSpan.FromSeconds(Math.Min(seconds, int.MaxValue / 1000))
        : throw new CommandFailedException($"Parameter '{name}' expects a number");

    private static int ParsePort(string text) =>
        int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int port) && port is > 0 and < 65536
            ? port : throw new CommandFailedException($"'{text}' is no TCP port");
}
