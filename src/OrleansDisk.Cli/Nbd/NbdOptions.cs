using System.Globalization;
using OrleansDisk.Cli.CommandLine;

namespace OrleansDisk.Cli.Nbd;

/// <summary>What odisk nbd was asked to do.</summary>
internal sealed record NbdOptions
{
    public const int DefaultPort = 10809;

    public required string File { get; init; }

    public string? Format { get; init; }

    /// <summary>Path of the unix socket, or null for TCP.</summary>
    public string? SocketPath { get; init; }

    public string Address { get; init; } = "";

    public int Port { get; init; } = DefaultPort;

    public string ExportName { get; init; } = "";

    public string Description { get; init; } = "";

    /// <summary>Clients served at once.</summary>
    public int ClientLimit { get; init; } = 1;

    /// <summary>Whether to go on when the last client has left.</summary>
    public bool IsPersistent { get; init; }

    public bool IsReadOnly { get; init; }

    public bool IsVerbose { get; init; }

    public bool Forks { get; init; }

    public bool PassDiscard { get; init; } = true;

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
            File = options.Operands[0],
            Format = options.Value("format"),
            SocketPath = options.Value("socket"),
            Address = options.Value("bind") is { } address && address != "0.0.0.0" ? address : "",
            Port = Number(options.Value("port"), "port", 65535) ?? DefaultPort,
            ExportName = options.Value("export-name") ?? "",
            Description = options.Value("description") ?? "",
            ClientLimit = clients == 0 ? int.MaxValue : clients,
            IsPersistent = options.Has("persistent"),
            IsReadOnly = options.Has("read-only"),
            IsVerbose = options.Has("verbose"),
            Forks = options.Has("fork"),
            PassDiscard = Discard(options.Value("discard")),
            PidFile = options.Value("pid-file"),
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
