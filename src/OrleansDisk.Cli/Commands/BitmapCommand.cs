using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Cli.Opening;
using OrleansDisk.Cli.Output;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Concurrency;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Cli.Commands;

/// <summary>odisk bitmap: makes, changes and removes the persistent dirty bitmaps of an image.</summary>
internal static class BitmapCommand
{
    private const string Help = """
              --add                make BITMAP, enabled and without a bit set
              --remove             remove it; works for one that is inconsistent, too
              --clear              clear all bits
              --enable             let changes of the disk set bits
              --disable            keep it as it is, whatever changes
              --merge=SOURCE       add the bits of the bitmap SOURCE
          -g, --granularity=SIZE   with --add: bytes that one bit stands for, a power of two from 512 to 2G
                                   (default: the cluster size, from 4k to 64k)
          -b, --source-file=FILE   with --merge: the image that has SOURCE
          -F, --source-format=FORMAT
                                   its format
          -f FORMAT                qcow2; found out when not given
              --image-opts         FILE is a list of options: driver=qcow2,file.filename=...
              --object=OBJECT      secret,id=ID,data=TEXT|file=FILE,format=raw|base64

        Several actions are done in the order in which they are given.
        """;

    public static Command Command { get; } = new(
        "bitmap", "Make, change and remove persistent dirty bitmaps", Help,
        [
            new OptionSpec('\0', "add", HasValue: false), new OptionSpec('\0', "remove", HasValue: false),
            new OptionSpec('\0', "clear", HasValue: false), new OptionSpec('\0', "enable", HasValue: false),
            new OptionSpec('\0', "disable", HasValue: false), new OptionSpec('\0', "merge", HasValue: true),
            new OptionSpec('g', "granularity", HasValue: true), new OptionSpec('b', "source-file", HasValue: true),
            new OptionSpec('F', "source-format", HasValue: true), Command.FormatOption, Command.ImageOptsOption,
            Command.ObjectOption,
        ],
        RunAsync)
    { Operands = "FILE BITMAP" };

    private static async Task<int> RunAsync(ParsedOptions options, Terminal terminal)
    {
        BitmapOperation[] operations = Operations(options);
        if (options.Operands.Count != 2)
            throw new CommandFailedException("Expecting filename and bitmap name");
        var turns = new ImageTurns();
        await turns.RunAsync(() => RunAsync(options, operations));
        return 0;
    }

    private static async Task RunAsync(ParsedOptions options, BitmapOperation[] operations)
    {
        string path = options.Operands[0];
        await using OpenedDisk disk = await OpenAsync(Command.RequestOf(options, path, ImageAccess.Write));
        await using OpenedDisk? source = options.Value("source-file") is { } sourcePath
            ? await OpenAsync(DiskRequest.Of(sourcePath, isOptionList: false, options.Value("source-format"))) : null;
        string name = options.Operands[1];
        foreach (BitmapOperation operation in operations)
        {
            try
            {
                await operation.RunAsync(ImageOf(disk), name, source is null ? null : ImageOf(source));
            }
            catch (Qcow2Exception e)
            {
                throw new CommandFailedException($"Operation {operation.Action.ToString().ToLowerInvariant()} on bitmap {name} failed: {e.Message}");
            }
        }
    }

    /// <summary>Bitmaps have nothing to do with what lies below the image.</summary>
    private static Task<OpenedDisk> OpenAsync(DiskRequest request) =>
        Command.OpeningAsync(request.DisplayName, () => DiskOpener.OpenAsync(request with { WithBacking = false }));

    private static Qcow2Image ImageOf(OpenedDisk disk) => disk.Image
        ?? throw new Qcow2Exception($"'{disk.Request.DisplayName}' is a raw file; only qcow2 images can have bitmaps");

    private static BitmapOperation[] Operations(ParsedOptions options)
    {
        long? granularity = options.Value("granularity") is { } text ? SizeText.Parse("granularity", text) : null;
        var operations = new List<BitmapOperation>();
        foreach ((string option, string value) in options.Options)
        {
            if (ActionOf(option) is { } action)
                operations.Add(new BitmapOperation(action) { GranularityBytes = granularity > 0 ? granularity : null, SourceName = value });
        }
        bool merges = options.Has("merge");
        string? error = operations.Count == 0 ? "Need at least one of --add, --remove, --clear, --enable, --disable, or --merge"
            : granularity > 0 && !options.Has("add") ? "granularity only supported with --add"
            : options.Has("source-format") && !options.Has("source-file") ? "-F only supported with -b"
            : options.Has("source-file") && !merges ? "Merge bitmap source file only supported with --merge" : null;
        return error is null ? [.. operations] : throw new CommandFailedException(error);
    }

    private static BitmapAction? ActionOf(string option) => option switch
    {
        "add" => BitmapAction.Add,
        "remove" => BitmapAction.Remove,
        "clear" => BitmapAction.Clear,
        "enable" => BitmapAction.Enable,
        "disable" => BitmapAction.Disable,
        "merge" => BitmapAction.Merge,
        _ => null,
    };
}
