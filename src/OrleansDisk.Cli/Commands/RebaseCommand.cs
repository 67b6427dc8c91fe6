using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Cli.Opening;
using OrleansDisk.Cli.Output;
using OrleansDisk.Cli.Shell;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Concurrency;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Cli.Commands;

/// <summary>odisk rebase: an image gets another backing file.</summary>
internal static class RebaseCommand
{
    private const string Help = """
          -b FILE            the new backing file; "" for none: the image then holds all of the disk
          -F FORMAT          format of the new backing file
          -u                 change the name only, and look at no backing file: the disk changes if they differ
          -c, --compress     compress what is copied (as qemu-img does from 9.1 on)
          -f FORMAT          qcow2; found out when not given
          -t CACHE           cache mode: writeback (default), none, writethrough, directsync, unsafe
          -T CACHE           cache mode of the new backing file
          -p                 show the progress
          -q                 say nothing
          -U, --force-share  open the new backing file even while someone writes it
          --image-opts       FILE is a list of options: driver=qcow2,file.filename=...
          --object OBJECT    secret,id=ID,data=TEXT|file=FILE,format=raw|base64
        """;

    public static Command Command { get; } = new(
        "rebase", "Give an image another backing file", Help,
        [
            Command.FormatOption, new OptionSpec('b', null, HasValue: true), new OptionSpec('F', null, HasValue: true),
            new OptionSpec('c', "compress", HasValue: false), new OptionSpec('u', null, HasValue: false), new OptionSpec('t', null, HasValue: true),
            new OptionSpec('T', null, HasValue: true), Command.ProgressOption, Command.QuietOption,
            Command.ShareOption, Command.ImageOptsOption, Command.ObjectOption,
        ],
        RunAsync);

    private static async Task<int> RunAsync(ParsedOptions options, Terminal terminal)
    {
        string path = Command.SingleFile(options);
        string? name = options.Value("b");
        if (!options.Has("u") && name is null)
            throw new CommandLineException("Must specify backing file (-b) or use unsafe mode (-u)");
        CacheMode cache = Command.CacheOf(options.Value("t"));
        _ = Command.CacheOf(options.Value("T"), "source cache"); // refused now, if at all
        DiskRequest request = DiskRequest.Of(path, options.Has("image-opts"), options.Value("f")) with
        {
            Access = ImageAccess.Write,
            Cache = cache,
            WithBacking = !options.Has("u"),
            Secrets = Secrets.Parse(options.Values("object")),
        };
        using var interruption = new Interruption();
        try
        {
            await new ImageTurns().RunAsync(() => RebaseAsync(options, terminal, request, interruption.Token));
            return 0;
        }
        catch (OperationCanceledException)
        {
            terminal.Flush();
            terminal.Error($"interrupted; '{path}' has its old backing file, and reads as before");
            return Interruption.ExitCode;
        }
    }

    private static async Task RebaseAsync(
        ParsedOptions options, Terminal terminal, DiskRequest request, CancellationToken cancellation)
    {
        using var progress = new ProgressReport(terminal, options.Has("p") && !options.Has("q"), minStep: 2);
        await using OpenedDisk disk = await Command.OpeningAsync(options.Operands[0], () => DiskOpener.OpenAsync(request));
        string? name = options.Value("b") is { Length: > 0 } given ? given : null;
        string? format = name is null ? null : options.Value("F");
        if (options.Value("F") is { } asked and not ("qcow2" or "raw" or "file" or "host_device" or "nbd"))
            throw new CommandFailedException($"Invalid format name: '{asked}'");
        if (disk.Image is not { } image)
            throw Refused(name, "Operation not supported");
        if (options.Has("u"))
        {
            await ChangingAsync(name, format, () => image.ChangeBackingFileAsync(name, format));
        }
        else
        {
            OpenedDisk? backing = name is null ? null : await OpenBackingAsync(options, image, name);
            try
            {
                var rebaseOptions = new RebaseOptions { Progress = progress.Set, Cancellation = cancellation, Compress = options.Has("compress") };
                await CopyingAsync(() => RebaseOperation.CopyAsync(image, backing?.Source, rebaseOptions));
                await ChangingAsync(name, format, () => image.ChangeBackingFileAsync(name, format));
            }
            finally
            {
                if (backing is not null)
                    await backing.DisposeAsync();
            }
        }
        progress.Finish();
    }

    private static async Task<OpenedDisk> OpenBackingAsync(ParsedOptions options, Qcow2Image image, string name)
    {
        string path = ImageInfo.ResolveBackingFile(image.FileName, name);
        try
        {
            return await DiskOpener.OpenAsync(DiskRequest.Of(path, isOptionList: false, options.Value("F")) with
            {
                Access = Command.ReadAccess(options),
                Cache = Command.CacheOf(options.Value("T"), "source cache"),
                Secrets = Secrets.Parse(options.Values("object")),
            });
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or CommandFailedException)
        {
            throw new CommandFailedException($"Could not open new backing file '{name}': {e.Message}");
        }
    }

    private static async Task CopyingAsync(Func<Task> copy)
    {
        try
        {
            await copy();
        }
        catch (CopyException e)
        {
            throw new CommandFailedException(e.IsWrite ? $"Error while writing to COW image: {ShellText.ErrorOf(e.InnerException!)}"
                : $"error while reading from a backing file: {ShellText.ErrorOf(e.InnerException!)}");
        }
    }

    private static async Task ChangingAsync(string? name, string? format, Func<Task> change)
    {
        if (name is not null && format is null)
            throw Refused(name, "backing format must be specified");
        try
        {
            await change();
        }
        catch (Qcow2Exception e) when (e is not Qcow2FailedException)
        {
            throw Refused(name, e.Message);
        }
    }

    private static CommandFailedException Refused(string? name, string reason) =>
        new($"Could not change the backing file to '{name ?? "(null)"}': {reason}");
}
