using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Cli.Opening;
using OrleansDisk.Cli.Output;
using OrleansDisk.Cli.Shell;
using OrleansDisk.Qcow2.Data;
using OrleansDisk.Qcow2.Concurrency;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Cli.Commands;

/// <summary>odisk dd: a part of a disk becomes a new image.</summary>
internal static class DdCommand
{
    private const int DefaultBlockBytes = 512;

    private static readonly string[] _operands = ["bs", "count", "if", "of", "skip"];

    private const string Help = """
          if=FILE            what is read
          of=FILE            the new image
          bs=SIZE            size of a block (default 512)
          count=N            how many blocks of FILE count, those that are skipped among them
          skip=N             how many of them are left out at the start
          -f FORMAT          format of what is read; found out when not given
          -O FORMAT          format of the new image: raw (default) or qcow2
          -U, --force-share  open what is read even while someone writes it
          --image-opts       if= is a list of options: driver=qcow2,file.filename=...
          --object OBJECT    secret,id=ID,data=TEXT|file=FILE,format=raw|base64
        """;

    public static Command Command { get; } = new(
        "dd", "Copy a part of a disk to a new image", Help,
        [
            Command.FormatOption, new OptionSpec('O', null, HasValue: true),
            Command.ShareOption, Command.ImageOptsOption, Command.ObjectOption,
        ],
        RunAsync)
    {
        Operands = "if=FILE of=FILE [bs=SIZE] [count=N] [skip=N]",
    };

    private static async Task<int> RunAsync(ParsedOptions options, Terminal terminal)
    {
        Dictionary<string, string> operands = Parse(options.Operands);
        long blockBytes = Number("bs", min: 1, max: int.MaxValue) ?? DefaultBlockBytes;
        long? count = Number("count");
        long skip = Number("skip") ?? 0;
        if (!operands.TryGetValue("if", out string? input) || !operands.TryGetValue("of", out string? output))
            throw new CommandFailedException("Must specify both input and output files");
        await new ImageTurns().RunAsync(async () =>
        {
            await using OpenedDisk source = await Command.OpeningAsync(
                input, () => DiskOpener.OpenAsync(Command.RequestOf(options, input, ImageAccess.Read)));
            (long start, long end) = PartOf(source.Source.VirtualBytes, blockBytes, count, skip);
            await CopyAsync(options, source, start, Math.Max(end - start, 0), output, () =>
            {
                if (start > end)
                    terminal.Error($"{input}: cannot skip to specified offset");
            });
        });
        return 0;

        long? Number(string name, long min = 0, long max = long.MaxValue) =>
            operands.TryGetValue(name, out string? text) ? SizeText.Parse(name, text, min, max) : null;
    }

    private static Dictionary<string, string> Parse(IEnumerable<string> operands)
    {
        var values = new Dictionary<string, string>(StringComparer.Ordinal);
        foreach (string operand in operands)
        {
            int equals = operand.IndexOf('=', StringComparison.Ordinal);
            string name = equals < 0 ? operand : operand[..equals];
            if (equals < 0 || !_operands.Contains(name))
                throw new CommandFailedException($"unrecognized operand {name}");
            values[name] = operand[(equals + 1)..];
        }
        return values;
    }

    /// <summary>Where the part starts and ends; it starts behind its end when all of it, or more, is skipped.</summary>
    private static (long Start, long End) PartOf(long diskBytes, long blockBytes, long? count, long skip)
    {
        long end = count <= diskBytes / blockBytes ? count.Value * blockBytes : diskBytes;
        return (skip <= long.MaxValue / blockBytes ? skip * blockBytes : long.MaxValue, end);
    }

    private static async Task CopyAsync(ParsedOptions options, OpenedDisk source, long start, long bytes, string output, Action warn)
    {
        string format = options.Value("O") ?? "raw";
        if (format is not ("qcow2" or "luks" or "raw"))
            throw new CommandFailedException("Unknown file format");
        try
        {
            await NewImage.OfSource(output, format, options, backing: (null, null)).CreateAsync(bytes);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or CommandFailedException)
        {
            throw new CommandFailedException($"{output}: error while creating output image: {e.Message}");
        }
        await using OpenedDisk target = await Command.OpeningAsync(output, () => DiskOpener.OpenAsync(
            DiskRequest.Of(output, isOptionList: false, format) with { Access = ImageAccess.Write }));
        warn();
        if (bytes == 0)
            return;
        try
        {
            var part = new ConvertSource(source.Source, await source.LayersAsync()) { Start = start, Bytes = bytes };
            await ConvertOperation.RunAsync([part], target.Writable!, new ConvertOptions { TargetIsZero = target.Source is not RawImage { IsDevice: true } });
        }
        catch (CopyException e)
        {
            throw new CommandFailedException(
                $"error while {(e.IsWrite ? "writing to output" : "reading from input")} image file: {ShellText.ErrorOf(e.InnerException!)}");
        }
    }
}
