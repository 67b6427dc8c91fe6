using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Cli.Output;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Cli.Commands;

/// <summary>odisk info: the facts of an image, or of a whole chain.</summary>
internal static class InfoCommand
{
    private const string Help = """
          -f FORMAT           qcow2 or raw; found out when not given
          --output=FORMAT     human (default) or json
          --backing-chain     the image and everything below it
          -U, --force-share   open the image even while someone writes it
        """;

    public static Command Command { get; } = new(
        "info", "Show what an image is", Help,
        [
            Command.FormatOption, Command.OutputOption, Command.ShareOption,
            new OptionSpec('\0', "backing-chain", HasValue: false),
        ],
        RunAsync);

    private static async Task<int> RunAsync(ParsedOptions options, Terminal terminal)
    {
        bool isJson = Command.WantsJson(options);
        string file = Command.SingleFile(options);
        bool isChain = options.Has("backing-chain");
        List<ImageInfo> chain = await ReadChainAsync(file, options.Value("f"), Command.ReadAccess(options), isChain);
        if (isJson)
            terminal.WriteLine(InfoText.Json(chain, isChain));
        else
            terminal.Write(string.Join('\n', chain.Select(InfoText.Human)));
        return 0;
    }

    private static async Task<List<ImageInfo>> ReadChainAsync(
        string file, string? format, ImageAccess access, bool withBacking)
    {
        var chain = new List<ImageInfo>();
        var seen = new HashSet<string>(StringComparer.Ordinal);
        for (string? path = file; path is not null;)
        {
            string current = path;
            if (!seen.Add(Path.GetFullPath(current)))
                throw new CommandFailedException($"Backing file '{current}' creates an infinite loop.");
            string? currentFormat = format;
            ImageInfo info = await Command.OpeningAsync(current, () => ImageInfo.ReadAsync(current, currentFormat, access));
            chain.Add(info);
            path = withBacking ? info.BackingPath : null;
            format = info.Header?.BackingFormat;
        }
        return chain;
    }
}
