using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Cli.Opening;
using OrleansDisk.Cli.Output;
using OrleansDisk.Cli.Shell;
using OrleansDisk.Qcow2.Concurrency;
using OrleansDisk.Qcow2.Data;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Cli.Commands;

/// <summary>odisk convert: a disk becomes an image of another format.</summary>
internal static class ConvertCommand
{
    private const string Help = """
          -f FORMAT              format of the source; found out when not given
          -O FORMAT              format of the target: raw (default) or qcow2
          -l SNAPSHOT            copy an internal snapshot: ID, NAME, or snapshot.id=ID,snapshot.name=NAME
          -o OPTIONS             name=value,... of the target, as odisk create has them
          -B FILE                backing file of the target: what the source leaves to its own is left to this one
          -F FORMAT              format of that backing file
          -c                     write compressed clusters
          --bitmaps              copy the persistent bitmaps of the source's top image, too
          --skip-broken-bitmaps  leave out those that are inconsistent; needs --bitmaps
          -S SIZE                smallest run of zeros that is left out (default 4k); 0: all is written
          -n                     the target is there: do not make it
          --target-image-opts    TARGET is a list of options: driver=qcow2,file.filename=...; needs -n
          --target-is-zero       the target reads as zeros all through; needs -n
          -m COUNT               parts that are copied at once: 1 to 16 (default 8)
          -W                     write in any order
          -C                     let the kernel copy from one raw file to another
          -r RATE                write at most so many bytes a second
          -t CACHE               cache mode of the target: unsafe (default), writeback, none, writethrough, directsync
          -T CACHE               cache mode of the sources: writeback (default), none, writethrough, directsync, unsafe
          --salvage              copy zeros in place of what can't be read
          -p                     show the progress
          -q                     say nothing
          -U, --force-share      open the source even while someone writes it
          --image-opts           the sources are lists of options
          --object OBJECT        secret,id=ID,data=TEXT|file=FILE,format=raw|base64

        Several sources are copied one behind the other.
        """;

    public static Command Command { get; } = new(
        "convert", "Copy a disk to an image of another format", Help,
        [
            Command.FormatOption, new OptionSpec('O', null, HasValue: true), new OptionSpec('o', null, HasValue: true),
            SnapshotView.Option, new OptionSpec('B', null, HasValue: true), new OptionSpec('F', null, HasValue: true),
            new OptionSpec('c', null, HasValue: false), new OptionSpec('\0', "bitmaps", HasValue: false),
            new OptionSpec('\0', "skip-broken-bitmaps", HasValue: false), new OptionSpec('S', null, HasValue: true),
            new OptionSpec('n', null, HasValue: false), new OptionSpec('\0', "target-image-opts", HasValue: false),
            new OptionSpec('\0', "target-is-zero", HasValue: false), new OptionSpec('m', null, HasValue: true),
            new OptionSpec('W', null, HasValue: false), new OptionSpec('C', null, HasValue: false),
            new OptionSpec('r', null, HasValue: true), new OptionSpec('t', null, HasValue: true),
            new OptionSpec('T', null, HasValue: true), new OptionSpec('\0', "salvage", HasValue: false),
            Command.ProgressOption, Command.QuietOption, Command.ShareOption, Command.ImageOptsOption, Command.ObjectOption,
        ],
        RunAsync)
    {
        Operands = "SOURCE... TARGET",
    };

    private static async Task<int> RunAsync(ParsedOptions options, Terminal terminal)
    {
        var arguments = ConvertArguments.Parse(options);
        if (arguments.AsksForHelp)
        {
            terminal.Write(FormatOptions.CreateHelp(arguments.TargetFormat ?? "raw", hasFile: options.Operands.Count > 0));
            return 0;
        }
        using var interruption = new Interruption();
        using var progress = new ProgressReport(terminal, options.Has("p") && !options.Has("q"), minStep: 1);
        try
        {
            await new ImageTurns().RunAsync(() => ConvertAsync(arguments, progress, interruption.Token));
            progress.Finish();
            return 0;
        }
        catch (OperationCanceledException)
        {
            terminal.Flush();
            terminal.Error($"interrupted; '{arguments.Target}' is consistent, but holds only a part of the disk");
            return Interruption.ExitCode;
        }
        catch (CopyException e)
        {
            throw new CommandFailedException($"error while {(e.IsWrite ? "writing" : "reading")} at byte {e.Offset}: "
                + ShellText.ErrorOf(e.InnerException!));
        }
    }

    private static async Task ConvertAsync(ConvertArguments arguments, ProgressReport progress, CancellationToken cancellation)
    {
        var disks = new List<OpenedDisk>();
        try
        {
            var sources = new List<ConvertSource>();
            foreach (DiskRequest request in arguments.Sources)
            {
                OpenedDisk disk = await SnapshotView.OpenAsync(request);
                disks.Add(disk);
                sources.Add(new ConvertSource(disk.Source, await disk.LayersAsync()));
            }
            BitmapCopy? bitmaps = arguments.CopiesBitmaps ? await BitmapCopy.OfAsync(disks[0], arguments.SkipsBrokenBitmaps) : null;
            var target = new ConvertTarget(arguments, sources.Sum(source => source.Bytes));
            await target.CreateAsync();
            OpenedDisk opened = await Command.OpeningAsync(arguments.Target, target.OpenAsync);
            disks.Add(opened);
            IWritableDisk writable = opened.Writable ?? throw new CommandFailedException($"'{arguments.Target}' is open read-only");
            if (bitmaps is not null)
                BitmapCopy.EnsureFits(opened);
            if (target.HasBacking)
                sources = [.. sources.Select(source => source with { OwnLayerCount = 1 })];
            ConvertOptions options = target.OptionsFor(opened) with { Progress = progress.Set, Cancellation = cancellation };
            await ConvertOperation.RunAsync(sources, writable, options);
            if (bitmaps is not null)
                await bitmaps.RunAsync(opened);
        }
        finally
        {
            // The target first: what it still has to write may need what lies below it.
            for (int i = disks.Count - 1; i >= 0; i--)
                await disks[i].DisposeAsync();
        }
    }
}
