using System.Globalization;
using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Cli.Opening;
using OrleansDisk.Cli.Output;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Cli.Commands;

/// <summary>odisk map: where the bytes of a disk come from.</summary>
internal static class MapCommand
{
    private const string Help = """
          -f, --format=FORMAT      qcow2 or raw; found out when not given
          --output=FORMAT          human (default) or json
          -s, --start-offset=SIZE  where to start
          -l, --max-length=SIZE    how much to show
          -U, --force-share        open the image even while someone writes it
          --image-opts             FILE is a list of options: driver=qcow2,file.filename=...
          --object OBJECT          secret,id=ID,data=TEXT|file=FILE,format=raw|base64
        """;

    public static Command Command { get; } = new(
        "map", "Show which file holds which part of a disk", Help,
        [
            Command.LongFormatOption, Command.OutputOption, Command.ShareOption, Command.ImageOptsOption, Command.ObjectOption,
            new OptionSpec('s', "start-offset", HasValue: true), new OptionSpec('l', "max-length", HasValue: true),
        ],
        RunAsync);

    private static async Task<int> RunAsync(ParsedOptions options, Terminal terminal)
    {
        bool isJson = Command.WantsJson(options);
        long start = ParseBytes(options.Value("start-offset"), "start offset") ?? 0;
        long bytes = ParseBytes(options.Value("max-length"), "max length") ?? long.MaxValue;
        string path = Command.SingleFile(options);
        await using OpenedDisk disk = await Command.OpeningAsync(
            path, () => DiskOpener.OpenAsync(Command.RequestOf(options, path, ImageAccess.Read)));
        IAsyncEnumerable<MapExtent> extents = MapOperation.WalkAsync(await disk.LayersAsync(), start, bytes);
        await (isJson ? WriteJsonAsync(extents, start, terminal) : WriteHumanAsync(extents, terminal));
        return 0;
    }

    private static async Task WriteHumanAsync(IAsyncEnumerable<MapExtent> extents, Terminal terminal)
    {
        terminal.WriteLine($"{"Offset",-16}{"Length",-16}{"Mapped to",-16}File");
        await foreach (MapExtent extent in extents)
        {
            if (extent is { IsData: true, HostOffset: null })
                throw new CommandFailedException("File contains external, encrypted or compressed clusters.");
            if (extent is { IsData: true, IsZero: false })
            {
                terminal.WriteLine($"{Hexadecimal(extent.Start),-16}{Hexadecimal(extent.Bytes),-16}"
                    + $"{Hexadecimal(extent.HostOffset!.Value),-16}{extent.FileName}");
            }
        }
    }

    private static async Task WriteJsonAsync(IAsyncEnumerable<MapExtent> extents, long start, Terminal terminal)
    {
        string separator = "[";
        await foreach (MapExtent extent in extents)
        {
            terminal.Write(separator + Json(extent));
            separator = ",\n";
        }
        if (separator == "[")
            terminal.Write("[" + Json(new MapExtent(start, 0, 0)));
        terminal.WriteLine("]");
    }

    private static string Json(MapExtent extent)
    {
        string offset = extent.HostOffset is { } host ? $", \"offset\": {host}" : "";
        return $"{{ \"start\": {extent.Start}, \"length\": {extent.Bytes}, \"depth\": {extent.Depth}, "
            + $"\"present\": {Bool(extent.IsPresent)}, \"zero\": {Bool(extent.IsZero)}, \"data\": {Bool(extent.IsData)}{offset}}}";
    }

    private static string Bool(bool value) => value ? "true" : "false";

    /// <summary>As C prints %#x: without the prefix for 0.</summary>
    private static string Hexadecimal(long value) =>
        value == 0 ? "0" : "0x" + value.ToString("x", CultureInfo.InvariantCulture);

    private static long? ParseBytes(string? text, string what) => text is null ? null : SizeText.Parse(what, text);
}
