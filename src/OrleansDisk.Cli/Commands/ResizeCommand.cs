using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Cli.Opening;
using OrleansDisk.Cli.Output;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Concurrency;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Cli.Commands;

/// <summary>odisk resize: a disk becomes larger or smaller.</summary>
internal static class ResizeCommand
{
    private const string Help = """
          -f FORMAT             qcow2 or raw; found out when not given
          --preallocation=MODE  off (default), metadata, falloc or full: what the new part has allocated
          --shrink              allow a smaller disk: what is cut off is gone
          -q                    say nothing
          --image-opts          FILE is a list of options: driver=qcow2,file.filename=...
          --object OBJECT       secret,id=ID,data=TEXT|file=FILE,format=raw|base64

        SIZE comes last: the new size, or with + or - in front how much the disk grows or shrinks. It is in bytes, or has a
        suffix: k, M, G, T, P, E.
        """;

    public static Command Command { get; } = new(
        "resize", "Make a disk larger or smaller", Help,
        [
            Command.FormatOption, Command.QuietOption, Command.ImageOptsOption, Command.ObjectOption,
            new OptionSpec('\0', "preallocation", HasValue: true), new OptionSpec('\0', "shrink", HasValue: false),
        ],
        RunAsync)
    {
        LastIsOperand = true,
    };

    private static async Task<int> RunAsync(ParsedOptions options, Terminal terminal)
    {
        Preallocation preallocation = ParsePreallocation(options.Value("preallocation"));
        if (options.Operands.Count < 2)
            throw new CommandLineException("Not enough arguments");
        if (options.Operands.Count > 2)
            throw new CommandLineException("Expecting image file name and size");
        (string path, string size) = (options.Operands[0], options.Operands[1]);
        int direction = size[..Math.Min(1, size.Length)] switch { "+" => 1, "-" => -1, _ => 0 };
        long bytes = CreationOptions.Parse([$"size={(direction == 0 ? size : size[1..])}"], ["size"]).Size("size") is { } parsed and <= long.MaxValue
            ? (long)parsed : throw new CommandFailedException("New image size must be positive");
        var turns = new ImageTurns();
        await turns.RunAsync(async () =>
        {
            await using OpenedDisk disk = await Command.OpeningAsync(
                path, () => DiskOpener.OpenAsync(Command.RequestOf(options, path, ImageAccess.Write)));
            await ResizeAsync(disk, direction, bytes, options.Has("shrink"), preallocation);
        });
        if (!options.Has("q"))
            terminal.WriteLine("Image resized.");
        return 0;
    }

    private static async Task ResizeAsync(OpenedDisk disk, int direction, long bytes, bool mayShrink, Preallocation preallocation)
    {
        long current = disk.Source.VirtualBytes;
        long wanted = direction == 0 ? bytes : current + (direction * bytes);
        if (wanted <= 0)
            throw new CommandFailedException("New image size must be positive");
        if (disk.Image is not null && wanted % 512 != 0 && (mayShrink || wanted > current))
            throw new CommandFailedException("The new size must be a multiple of 512");
        try
        {
            await ResizeOperation.RunAsync(disk.Writable!, wanted, mayShrink, preallocation);
        }
        catch (ShrinkNotAllowedException)
        {
            throw new CommandFailedException("Use the --shrink option to perform a shrink operation.",
                "warning: Shrinking an image will delete all data beyond the shrunken image's end. Before performing such an operation, "
                + "make sure there is no important data there.");
        }
    }

    private static Preallocation ParsePreallocation(string? mode) => mode switch
    {
        null or "off" => Preallocation.Off,
        "metadata" => Preallocation.Metadata,
        "falloc" => Preallocation.Falloc,
        "full" => Preallocation.Full,
        _ => throw new CommandFailedException($"Invalid preallocation mode '{mode}'"),
    };
}
