using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Cli.Opening;
using OrleansDisk.Cli.Output;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Cli.Commands;

/// <summary>odisk info: the facts of an image, or of a whole chain.</summary>
internal static class InfoCommand
{
    private const string Help = """
          -f, --format=FORMAT qcow2 or raw; found out when not given
          --output=FORMAT     human (default) or json
          --backing-chain     the image and everything below it
          -U, --force-share   open the image even while someone writes it
          --image-opts        FILE is a list of options: driver=qcow2,file.filename=...
          --object OBJECT     secret,id=ID,data=TEXT|file=FILE,format=raw|base64
        """;

    public static Command Command { get; } = new(
        "info", "Show what an image is", Help,
        [
            Command.LongFormatOption, Command.OutputOption, Command.ShareOption, Command.ImageOptsOption, Command.ObjectOption,
            new OptionSpec('\0', "backing-chain", HasValue: false),
        ],
        RunAsync);

    private static async Task<int> RunAsync(ParsedOptions options, Terminal terminal)
    {
        bool isJson = Command.WantsJson(options);
        string file = Command.SingleFile(options);
        bool isChain = options.Has("backing-chain");
        List<ImageInfo> chain = await ReadChainAsync(Command.RequestOf(options, file, ImageAccess.Read), isChain);
        if (isJson)
            terminal.WriteLine(InfoText.Json(chain, isChain));
        else
            terminal.Write(string.Join('\n', chain.Select(InfoText.Human)));
        return 0;
    }

    private static async Task<List<ImageInfo>> ReadChainAsync(DiskRequest request, bool withBacking)
    {
        var chain = new List<ImageInfo>();
        var seen = new HashSet<string>(StringComparer.Ordinal);
        for (DiskRequest? next = request; next is not null;)
        {
            DiskRequest current = next;
            ImageInfo info = await Command.OpeningAsync(current.DisplayName, () => ReadAsync(current));
            chain.Add(info);
            if (!seen.Add(Path.GetFullPath(info.FileName)))
                throw new CommandFailedException($"Backing file '{info.FileName}' creates an infinite loop.");
            next = withBacking && info.BackingPath is { } path
                ? DiskRequest.Of(path, isOptionList: false, info.Header?.BackingFormat) with { Access = request.Access, Secrets = request.Secrets }
                : null;
        }
        return chain;
    }

    private static async Task<ImageInfo> ReadAsync(DiskRequest request)
    {
        await using OpenedFile opened = await DiskOpener.OpenFileAsync(request);
        ImageInfo info = await ImageInfo.ReadAsync(opened.File, opened.Format);
        return info with { Format = opened.Protocol ?? info.Format, AllocatedBytes = FileSpace.AllocatedBytes(opened.File.Name) };
    }
}
