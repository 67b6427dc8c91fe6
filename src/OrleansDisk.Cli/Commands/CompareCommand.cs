using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Cli.Opening;
using OrleansDisk.Cli.Output;
using OrleansDisk.Cli.Shell;
using OrleansDisk.Qcow2.Concurrency;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Cli.Commands;

/// <summary>odisk compare: do two disks hold the same?</summary>
internal static class CompareCommand
{
    private const int Differs = 1;
    private const int CouldNotOpen = 2;
    private const int CouldNotReadMap = 3;
    private const int CouldNotRead = 4;

    private const string Help = """
          -f FORMAT          format of the first image; found out when not given
          -F FORMAT          format of the second image
          -s                 strict: sizes and what is allocated count, too
          -p                 show the progress
          -q                 say nothing
          -T CACHE           cache mode: writeback (default), none, writethrough, directsync, unsafe
          -U, --force-share  open the images even while someone writes them
          --image-opts       the files are lists of options: driver=qcow2,file.filename=...
          --object OBJECT    secret,id=ID,data=TEXT|file=FILE,format=raw|base64

        Exit code: 0 the same, 1 different, 2 an image can't be opened, 3 its map can't be read, 4 its data can't be read.
        """;

    public static Command Command { get; } = new(
        "compare", "Test whether two disks hold the same", Help,
        [
            Command.FormatOption, new OptionSpec('F', null, HasValue: true), new OptionSpec('s', null, HasValue: false),
            Command.ProgressOption, Command.QuietOption, new OptionSpec('T', null, HasValue: true),
            Command.ShareOption, Command.ImageOptsOption, Command.ObjectOption,
        ],
        RunAsync)
    {
        Operands = "FILE1 FILE2",
    };

    private static async Task<int> RunAsync(ParsedOptions options, Terminal terminal)
    {
        if (options.Operands.Count != 2)
            throw new CommandLineException("Expecting two image file names");
        try
        {
            CacheMode cache = Command.CacheOf(options.Value("T"), "source cache");
            return await new ImageTurns().RunAsync(() => CompareAsync(options, cache, terminal));
        }
        catch (CommandFailedException e)
        {
            terminal.Flush();
            terminal.Error(e.Message);
            return CouldNotOpen;
        }
    }

    private static async Task<int> CompareAsync(ParsedOptions options, CacheMode cache, Terminal terminal)
    {
        bool isQuiet = options.Has("q");
        await using OpenedDisk first = await OpenAsync(options, cache, options.Operands[0], options.Value("f"));
        await using OpenedDisk second = await OpenAsync(options, cache, options.Operands[1], options.Value("F"));
        using var progress = new ProgressReport(terminal, options.Has("p") && !isQuiet, minStep: 2);
        var compareOptions = new CompareOptions
        {
            Strict = options.Has("s"),
            Progress = progress.Set,
            OnSizeMismatch = () => Say("Warning: Image size mismatch!"),
        };
        try
        {
            CompareResult result = await CompareOperation.RunAsync(await first.LayersAsync(), await second.LayersAsync(), compareOptions);
            Say(result.Outcome switch
            {
                CompareOutcome.Identical => "Images are identical.",
                CompareOutcome.SizeDiffers => "Strict mode: Image size mismatch!",
                CompareOutcome.MappingDiffers => $"Strict mode: Offset {result.Offset} block status mismatch!",
                _ => $"Content mismatch at offset {result.Offset}!",
            });
            return result.Outcome == CompareOutcome.Identical ? 0 : Differs;
        }
        catch (CompareException e)
        {
            string name = options.Operands[e.IsFirst ? 0 : 1];
            terminal.Error(e.IsOfMapping ? $"Sector allocation test failed for {name}"
                : $"Error while reading offset {e.Offset} of {name}: {ShellText.ErrorOf(e.InnerException!)}");
            return e.IsOfMapping ? CouldNotReadMap : CouldNotRead;
        }

        void Say(string line)
        {
            if (!isQuiet)
                terminal.WriteLine(line);
        }
    }

    private static Task<OpenedDisk> OpenAsync(ParsedOptions options, CacheMode cache, string operand, string? format)
    {
        DiskRequest request = DiskRequest.Of(operand, options.Has("image-opts"), format) with
        {
            Access = Command.ReadAccess(options),
            Cache = cache,
            Secrets = Secrets.Parse(options.Values("object")),
        };
        return Command.OpeningAsync(operand, () => DiskOpener.OpenAsync(request));
    }
}
