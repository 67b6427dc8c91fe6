using System.Globalization;
using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Cli.Opening.Drivers;
using OrleansDisk.Nbd.Client;

namespace OrleansDisk.Cli.Opening;

/// <summary>Where an NBD export is: by one of its names, or by the options of the nbd driver.</summary>
internal sealed record NbdAddress
{
    private const int DefaultPort = 10809;

    /// <summary>The unix socket, or null for TCP.</summary>
    public string? SocketPath { get; private init; }

    public string Host { get; private init; } = "localhost";

    public int Port { get; private init; } = DefaultPort;

    public string Export { get; private init; } = "";

    /// <summary>The context that is shown in place of what is allocated (QEMU's x-dirty-bitmap), or null.</summary>
    public string? Context { get; private init; }

    /// <summary>Reads a name, nbd://, nbd+unix:// or nbd:, and takes the options of the driver.</summary>
    /// <exception cref="CommandFailedException">It leads nowhere.</exception>
    public static NbdAddress Take(string? name, BlockOptions options)
    {
        NbdAddress address = name is null ? FromOptions(options)
            : name.Contains("://", StringComparison.Ordinal) ? FromUri(name) : FromOldName(name);
        foreach (string waiting in (ReadOnlySpan<string>)["reconnect-delay", "open-timeout"])
            _ = options.Take(waiting);
        address = address with { Context = options.Take("x-dirty-bitmap") };
        options.RefuseRestOfProtocol("nbd");
        return address;
    }

    /// <summary>Connects to the export.</summary>
    /// <exception cref="CommandFailedException">There is no server, or it does not have the export.</exception>
    public async Task<NbdDisk> OpenAsync(bool isReadOnly)
    {
        try
        {
            string context = Context ?? "base:allocation";
            NbdClient client = SocketPath is not null ? await NbdClient.ConnectUnixAsync(SocketPath, Export, context)
                : await NbdClient.ConnectTcpAsync(Host, Port, Export, context);
            if (client.HasContext || Context is null)
                return new NbdDisk(client, ToString(), isReadOnly);
            await client.DisposeAsync();
        }
        catch (IOException e)
        {
            throw new CommandFailedException($"Failed to connect to '{SocketPath ?? $"{Host}:{Port}"}': {e.Message}");
        }
        throw new CommandFailedException($"requested x-dirty-bitmap {Context} not found");
    }

    /// <summary>The address as a URI.</summary>
    public override string ToString() => SocketPath is null
        ? $"nbd://{Host}{(Port == DefaultPort ? "" : $":{Port}")}{(Export.Length > 0 ? "/" + Export : "")}"
        : $"nbd+unix:///{Export}?socket={SocketPath}";

    private static NbdAddress FromUri(string name)
    {
        if (!Uri.TryCreate(name, UriKind.Absolute, out Uri? uri))
            throw new CommandFailedException($"'{name}' is no valid URI");
        string export = Uri.UnescapeDataString(uri.AbsolutePath.TrimStart('/'));
        if (uri.Scheme != "nbd+unix")
            return new NbdAddress { Host = uri.Host, Port = uri.Port > 0 ? uri.Port : DefaultPort, Export = export };
        const string query = "?socket=";
        return uri.Query.StartsWith(query, StringComparison.Ordinal)
            ? new NbdAddress { SocketPath = Uri.UnescapeDataString(uri.Query[query.Length..]), Export = export }
            : throw new CommandFailedException($"'{name}' names no socket; use nbd+unix:///EXPORT?socket=PATH");
    }

    private static NbdAddress FromOldName(string name)
    {
        const string exportMark = ":exportname=";
        string server = name["nbd:".Length..];
        string export = "";
        if (server.IndexOf(exportMark, StringComparison.Ordinal) is >= 0 and int mark)
            (server, export) = (server[..mark], server[(mark + exportMark.Length)..]);
        if (server.StartsWith("unix:", StringComparison.Ordinal))
            return new NbdAddress { SocketPath = server["unix:".Length..], Export = export };
        int colon = server.LastIndexOf(':');
        if (colon <= 0)
            throw new CommandFailedException("No valid URL specified");
        return new NbdAddress { Host = server[..colon], Port = ParsePort(server[(colon + 1)..]), Export = export };
    }

    private static NbdAddress FromOptions(BlockOptions options)
    {
        BlockOptions server = options.TakeChild("server");
        _ = server.Take("type");
        _ = options.Take("type");
        string? path = server.Take("path") ?? options.Take("path");
        string? host = server.Take("host") ?? options.Take("host");
        string? port = server.Take("port") ?? options.Take("port");
        string export = options.Take("export") ?? "";
        if (path is null && host is null)
            throw new CommandFailedException("NBD server address missing");
        return path is not null ? new NbdAddress { SocketPath = path, Export = export }
            : new NbdAddress { Host = host!, Port = port is null ? DefaultPort : ParsePort(port), Export = export };
    }

    private static int ParsePort(string text) =>
        int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int port) && port is > 0 and < 65536
            ? port : throw new CommandFailedException($"'{text}' is no TCP port");
}
