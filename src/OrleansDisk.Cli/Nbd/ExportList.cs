using System.Globalization;
using System.Net;
using System.Net.Sockets;
using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Cli.Output;
using OrleansDisk.Nbd.Client;

namespace OrleansDisk.Cli.Nbd;

/// <summary>odisk nbd --list: what another server has, in the words of qemu-nbd.</summary>
internal static class ExportList
{
    private const string AnyAddress = "0.0.0.0";

    /// <summary>Names of the transmission flags from bit 1 on (NBD protocol, "Transmission flags").</summary>
    private static readonly string[] _flagNames =
        ["readonly", "flush", "fua", "rotational", "trim", "zeroes", "df", "multi", "resize", "cache", "fast-zero"];

    /// <summary>Options that are those of a served image, and not of a list.</summary>
    private static readonly string[] _imageOptions =
        ["offset", "allocation-depth", "bitmap", "load-snapshot", "nocache", "cache", "aio", "discard", "format", "export-name",
            "description", "connect", "disconnect"];

    public static async Task<int> RunAsync(ParsedOptions options, Terminal terminal)
    {
        if (options.Operands.Count > 0)
            throw new CommandFailedException("List mode is incompatible with a file name");
        if (_imageOptions.Any(options.Has))
            throw new CommandFailedException("List mode is incompatible with per-device settings");
        if (options.Has("fork"))
            throw new CommandFailedException("List mode is incompatible with forking");
        EndPoint server = options.Value("socket") is { } path ? new UnixDomainSocketEndPoint(path)
            : new DnsEndPoint(options.Value("bind") ?? AnyAddress, NbdOptions.PortOf(options));
        IReadOnlyList<NbdListedExport> exports;
        try
        {
            exports = await NbdClient.ListAsync(new NbdClientOptions
            {
                Server = server,
                Tls = NbdOptions.TlsOf(options, isServer: false),
                TlsHostName = options.Value("tls-hostname"),
            });
        }
        catch (IOException e)
        {
            throw new CommandFailedException(e.Message);
        }
        terminal.WriteLine($"exports available: {exports.Count}");
        foreach (NbdListedExport export in exports)
            Write(export, terminal);
        return 0;
    }

    private static void Write(NbdListedExport export, Terminal terminal)
    {
        terminal.WriteLine($" export: '{export.Name}'");
        if (export.Description.Length > 0)
            terminal.WriteLine($"  description: {export.Description}");
        if (export.IsDescribed)
        {
            terminal.WriteLine($"  size:  {export.Bytes}");
            IEnumerable<string> flags = _flagNames.Where((_, bit) => (export.Flags >> (bit + 1) & 1) != 0);
            terminal.WriteLine($"  flags: 0x{export.Flags.ToString("x", CultureInfo.InvariantCulture)} ( {string.Concat(flags.Select(flag => flag + " "))})");
        }
        if (export.BlockBytes is { } blocks)
        {
            terminal.WriteLine($"  min block: {blocks.Min}");
            terminal.WriteLine($"  opt block: {blocks.Preferred}");
            terminal.WriteLine($"  max block: {blocks.Max}");
        }
        if (export.MetaContexts.Count > 0)
        {
            terminal.WriteLine($"  available meta contexts: {export.MetaContexts.Count}");
            foreach (string context in export.MetaContexts)
                terminal.WriteLine($"   {context}");
        }
    }
}
