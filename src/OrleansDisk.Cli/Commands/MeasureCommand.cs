using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Cli.Opening;
using OrleansDisk.Cli.Output;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Concurrency;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Cli.Commands;

/// <summary>odisk measure: how large will an image be?</summary>
internal static class MeasureCommand
{
    private const string Help = """
          --size SIZE        size of a disk that is empty so far
          -f FORMAT          format of FILE; found out when not given
          -l SNAPSHOT        an internal snapshot of FILE: ID, NAME, or snapshot.id=ID,snapshot.name=NAME
          -O FORMAT          format of the new image: raw (default) or qcow2
          -o OPTIONS         name=value,... of the new image, as odisk create has them
          --output=FORMAT    human (default) or json
          -U, --force-share  open FILE even while someone writes it
          --image-opts       FILE is a list of options: driver=qcow2,file.filename=...
          --object OBJECT    secret,id=ID,data=TEXT|file=FILE,format=raw|base64
        """;

    public static Command Command { get; } = new(
        "measure", "Tell how large a new image will be", Help,
        [
            Command.FormatOption, SnapshotView.Option, new OptionSpec('O', null, HasValue: true), new OptionSpec('o', null, HasValue: true),
            new OptionSpec('\0', "size", HasValue: true), Command.OutputOption, Command.ShareOption,
            Command.ImageOptsOption, Command.ObjectOption,
        ],
        RunAsync)
    {
        Operands = "[FILE]",
    };

    private static async Task<int> RunAsync(ParsedOptions options, Terminal terminal)
    {
        CreationOptions.ValidateLists(options.Values("o"));
        _ = SnapshotView.Of(options);
        bool isJson = Command.WantsJson(options);
        long? size = options.Value("size") is { } text ? SizeText.ParseImageSize(text) : null;
        if (options.Operands.Count > 1)
            throw new CommandFailedException("At most one filename argument is allowed.");
        string? path = options.Operands.Count == 1 ? options.Operands[0] : null;
        if (path is null && (options.Has("image-opts") || options.Has("f") || options.Has("l")))
            throw new CommandFailedException("--image-opts, -f, and -l require a filename argument.");
        if (path is not null && size is not null)
            throw new CommandFailedException("--size N cannot be used together with a filename.");
        if (path is null && size is null)
            throw new CommandFailedException("Either --size N or one filename must be specified.");
        MeasuredSize measured = await new ImageTurns().RunAsync(() => MeasureAsync(options, path, size));
        if (isJson)
        {
            JsonText json = new JsonText().Begin();
            if (measured.Bitmaps is { } bitmaps)
                json.Value("bitmaps", bitmaps);
            json.Value("required", measured.Required).Value("fully-allocated", measured.FullyAllocated);
            terminal.WriteLine(json.End().ToString());
        }
        else
        {
            terminal.WriteLine($"required size: {measured.Required}");
            terminal.WriteLine($"fully allocated size: {measured.FullyAllocated}");
            if (measured.Bitmaps is { } bitmaps)
                terminal.WriteLine($"bitmaps size: {bitmaps}");
        }
        return 0;
    }

    private static async Task<MeasuredSize> MeasureAsync(ParsedOptions options, string? path, long? size)
    {
        (CreateOptions? target, Func<long, MeasuredSize> measureOther) = TargetOf(options);
        if (path is null)
        {
            return target is null ? measureOther(size!.Value)
                : await MeasureOperation.Qcow2Async(target with { VirtualBytes = size!.Value }, source: null);
        }
        await using OpenedDisk disk = await SnapshotView.OpenAsync(
            Command.RequestOf(options, path, ImageAccess.Read) with { Snapshot = SnapshotView.Of(options) });
        if (target is null)
            return measureOther(disk.Source.VirtualBytes);
        MeasuredSize measured = await MeasureOperation.Qcow2Async(target, await disk.LayersAsync());
        if (target.Version < 3 || disk.Source is not Qcow2Image { Header.Version: >= 3 } image)
            return measured;
        IReadOnlyList<BitmapEntry> bitmaps = [];
        await image.RunSettledAsync(async file => bitmaps = await DirectoryReader.ReadBitmapsAsync(file, image.Header));
        return measured with { Bitmaps = MeasureOperation.BitmapBytes(bitmaps, image.VirtualBytes, target.ClusterBytes) };
    }

    /// <summary>The image that is measured, or null and how else a disk is measured by its size.</summary>
    private static (CreateOptions? Image, Func<long, MeasuredSize> Other) TargetOf(ParsedOptions options)
    {
        string format = options.Value("O") ?? "raw";
        CreationOptions.ValidateLists(options.Values("o"));
        try
        {
            var image = NewImage.OfSource("", format, options, backing: (null, null));
            if (format == "raw")
                return (null, MeasureOperation.Raw);
            NewEncryption? encryption = image.ToEncryption();
            encryption?.Secret.Dispose();
            return format == "qcow2" ? (image.ToCreateOptions(virtualBytes: 0) with { Encryption = encryption }, MeasureOperation.Raw)
                : (null, bytes => MeasureOperation.Luks(bytes, encryption!.Cipher));
        }
        catch (CommandFailedException e) when (options.Has("o"))
        {
            throw new CommandFailedException(e.Message, $"Invalid options for file format '{format}'");
        }
    }
}
