using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Cli.Opening;
using OrleansDisk.Cli.Output;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Concurrency;
using OrleansDisk.Qcow2.Crypto;
using OrleansDisk.Qcow2.Data;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Cli.Commands;

/// <summary>odisk amend: an image becomes one of another version, with other features.</summary>
internal static class AmendCommand
{
    private const string Help = """
          -o OPTIONS            name=value,...; -o help lists them
          -f FORMAT             qcow2 or luks; found out when not given
          -t CACHE              cache mode: writeback (default), none, writethrough, directsync, unsafe
          -p                    show how much is done
          -q                    say nothing
          --force               allow what loses the last key of an encrypted image
          --image-opts          FILE is a list of options: driver=qcow2,file.filename=...
          --object OBJECT       secret,id=ID,data=TEXT|file=FILE,format=raw|base64
        """;

    public static Command Command { get; } = new(
        "amend", "Change the version and the features of an image", Help,
        [
            new OptionSpec('o', null, HasValue: true), Command.FormatOption, new OptionSpec('t', null, HasValue: true),
            new OptionSpec('p', null, HasValue: false), Command.QuietOption, new OptionSpec('\0', "force", HasValue: false),
            Command.ImageOptsOption, Command.ObjectOption,
        ],
        RunAsync)
    {
        Operands = "FILE",
    };

    private static async Task<int> RunAsync(ParsedOptions options, Terminal terminal)
    {
        string[] lists = [.. options.Values("o")];
        if (lists.Length == 0)
            throw new CommandLineException("Must specify options (-o)");
        CreationOptions.ValidateLists(lists);
        bool asksForHelp = lists.Any(CreationOptions.AsksForHelp);
        if (asksForHelp && options.Value("f") is { } format)
        {
            WriteHelp(format, terminal);
            return 0;
        }
        if (options.Operands.Count != 1)
            throw new CommandLineException("Expecting one image file name", showsHelpHint: false);
        string path = options.Operands[0];
        DiskRequest request = Command.RequestOf(options, path, ImageAccess.Write) with
        {
            Cache = CacheMode.Parse(options.Value("t") ?? "writeback", name => $"Invalid cache option: {name}"),
        };
        var progress = new ProgressLine(terminal, isShown: options.Has("p") && !options.Has("q"));
        var turns = new ImageTurns();
        if (asksForHelp)
        {
            string found = "";
            await turns.RunAsync(async () =>
            {
                await using OpenedDisk disk = await OpenAsync(path, request);
                found = disk.Source.Format;
            });
            WriteHelp(found, terminal);
            return 0;
        }
        await turns.RunAsync(() => AmendAsync(path, request, lists, options.Has("force"), progress));
        return 0;
    }

    private static async Task AmendAsync(string path, DiskRequest request, string[] lists, bool force, ProgressLine progress)
    {
        OpenedDisk? first = await OpenAsync(path, request);
        try
        {
            string prefix = first.Source is LuksImage ? "" : EncryptionOptions.Qcow2Prefix;
            CreationOptions values = Parse(lists, first.Source.Format);
            byte[] password = first.Password;
            KeySlotChange MakeChange(LuksHeader luks) =>
                KeySlotOptions.Parse(values, request.Secrets, prefix, luks.Hash) with { Secret = new Secret(password), Force = force };
            AmendOptions amend = ToAmendOptions(values) with { KeySlots = KeySlotOptions.AreGiven(values, prefix) ? MakeChange : null };
            progress.Report(0);
            try
            {
                if (first.Source is LuksImage luks)
                    await luks.ChangeKeySlotsAsync(MakeChange);
                else
                    await AmendOperation.RunAsync(OpenImageAsync, amend, progress);
            }
            finally
            {
                progress.End();
            }
        }
        finally
        {
            if (first is not null)
                await first.DisposeAsync();
        }

        async Task<Qcow2Image> OpenImageAsync()
        {
            OpenedDisk disk = first ?? await OpenAsync(path, request);
            first = null; // it is the operation's from here on
            return disk.Image!;
        }
    }

    private static CreationOptions Parse(string[] lists, string format)
    {
        try
        {
            return CreationOptions.Parse(lists, OptionsOf(format).Select(option => option.Name));
        }
        catch (CommandFailedException e) when (IsForCreation(lists, format))
        {
            throw new CommandFailedException($"{e.Message}\nThis option is only supported for image creation");
        }
    }

    private static IReadOnlyList<FormatOption> OptionsOf(string format) => format == "luks" ? FormatOptions.AmendLuks : FormatOptions.AmendQcow2;

    private static AmendOptions ToAmendOptions(CreationOptions values)
    {
        return new AmendOptions
        {
            Version = ParseVersion(values["compat"]),
            VirtualBytes = values.Size("size") is { } bytes ? (long)Math.Min(bytes, long.MaxValue) : null,
            BackingFile = values["backing_file"],
            BackingFormat = values["backing_fmt"],
            LazyRefcounts = values["lazy_refcounts"] is null ? null : values.Switch("lazy_refcounts"),
            RefcountBits = values.Number("refcount_bits"),
            DataFile = values["data_file"],
            DataFileRaw = values["data_file_raw"] is null ? null : values.Switch("data_file_raw"),
        };
    }

    /// <summary>Whether the options would mean something when an image is made.</summary>
    private static bool IsForCreation(string[] lists, string format)
    {
        IEnumerable<string> created = format == "luks" ? [.. EncryptionOptions.PlainNames, "size"] : FormatOptions.CreateQcow2.Select(option => option.Name);
        try
        {
            _ = CreationOptions.Parse(lists, created.Concat(OptionsOf(format).Select(option => option.Name)));
            return true;
        }
        catch (CommandFailedException)
        {
            return false;
        }
    }

    private static int? ParseVersion(string? compat) => compat switch
    {
        null => null,
        "1.1" or "v3" => 3,
        "0.10" or "v2" => 2,
        _ => throw new CommandFailedException($"Unknown compatibility level {compat}"),
    };

    private static async Task<OpenedDisk> OpenAsync(string path, DiskRequest request)
    {
        OpenedDisk disk = await Command.OpeningAsync(path, () => DiskOpener.OpenAsync(request));
        if (disk.Image is not null || disk.Source is LuksImage)
            return disk;
        await using (disk)
            throw NotAmendable(disk.Source.Format);
    }

    private static void WriteHelp(string format, Terminal terminal)
    {
        if (format is not ("qcow2" or "luks" or "raw"))
            throw new CommandFailedException($"Unknown file format '{format}'");
        if (format == "raw")
            throw NotAmendable(format);
        terminal.WriteLine($"Amend options for '{format}':");
        terminal.Write(FormatOptions.Describe(OptionsOf(format)));
    }

    private static CommandFailedException NotAmendable(string format) =>
        new($"Format driver '{format}' does not support option amendment");

    /// <summary>How much is done, in a line that is written over and over, as qemu-img writes it.</summary>
    private sealed class ProgressLine(Terminal terminal, bool isShown) : IProgress<double>
    {
        private double _lastPercent = -1;

        public void Report(double value)
        {
            double percent = Math.Clamp(value * 100, 0, 100);
            if (!isShown || (_lastPercent >= 0 && percent - _lastPercent < 1 && percent < 100) || percent <= _lastPercent)
                return;
            _lastPercent = percent;
            terminal.Write(string.Create(System.Globalization.CultureInfo.InvariantCulture, $"    ({percent:0.00}/100%)\r"));
            terminal.Flush();
        }

        public void End()
        {
            Report(1);
            if (isShown)
                terminal.Write("\n");
        }
    }
}
