using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Cli.Opening;
using OrleansDisk.Cli.Output;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Concurrency;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Cli.Commands;

/// <summary>odisk commit: what an image holds goes into its backing file.</summary>
internal static class CommitCommand
{
    private const string Help = """
          -f FORMAT        qcow2; found out when not given
          -b FILE          commit into this image of the chain, in place of the next one; implies -d
          -d               leave the image as it is; without -d it is emptied at the end
          -t CACHE         cache mode: writeback (default), none, writethrough, directsync, unsafe
          -r RATE          write at most so many bytes a second
          -p               show the progress
          -q               say nothing
          --image-opts     FILE is a list of options: driver=qcow2,file.filename=...
          --object OBJECT  secret,id=ID,data=TEXT|file=FILE,format=raw|base64
        """;

    public static Command Command { get; } = new(
        "commit", "Write what an image holds into its backing file", Help,
        [
            Command.FormatOption, new OptionSpec('b', null, HasValue: true), new OptionSpec('d', null, HasValue: false),
            new OptionSpec('t', null, HasValue: true), new OptionSpec('r', null, HasValue: true),
            Command.ProgressOption, Command.QuietOption, Command.ImageOptsOption, Command.ObjectOption,
        ],
        RunAsync);

    private static async Task<int> RunAsync(ParsedOptions options, Terminal terminal)
    {
        long rate = options.Value("r") is { } text ? SizeText.Parse("rate limit", text) : 0;
        string path = Command.SingleFile(options);
        CacheMode cache = Command.CacheOf(options.Value("t"));
        DiskRequest request = Command.RequestOf(options, path, ImageAccess.Write) with { Cache = cache };
        using var interruption = new Interruption();
        var convertOptions = new ConvertOptions
        {
            Cancellation = interruption.Token,
            Pace = rate > 0 ? new RateLimit(rate).WaitAsync : null,
        };
        try
        {
            await new ImageTurns().RunAsync(() => CommitAsync(options, terminal, request, convertOptions));
        }
        catch (OperationCanceledException)
        {
            terminal.Flush();
            terminal.Error($"interrupted; '{path}' reads as before, and its backing file holds a part of it");
            return Interruption.ExitCode;
        }
        if (!options.Has("q"))
            terminal.WriteLine("Image committed.");
        return 0;
    }

    private static async Task CommitAsync(ParsedOptions options, Terminal terminal, DiskRequest request, ConvertOptions convertOptions)
    {
        string path = options.Operands[0];
        int depth = await FindDepthAsync(path, options.Value("b"), request);
        await using OpenedDisk disk = await Command.OpeningAsync(path, () => DiskOpener.OpenAsync(request with { WritableDepth = depth }));
        IReadOnlyList<MapLayer> layers = await disk.LayersAsync();
        using var progress = new ProgressReport(terminal, options.Has("p") && !options.Has("q"), minStep: 1);
        try
        {
            await CommitOperation.RunAsync(layers, depth, convertOptions with { Progress = progress.Set });
        }
        catch (CopyException e)
        {
            throw new CommandFailedException($"Block job failed: {Shell.ShellText.ErrorOf(e.InnerException!)}");
        }
        if (!options.Has("d") && !options.Has("b") && layers[0].Source is Qcow2Image top)
            await EmptyAsync(top, path);
        progress.Finish();
    }

    private static async Task EmptyAsync(Qcow2Image image, string path)
    {
        try
        {
            await image.MakeEmptyAsync();
        }
        catch (IOException e)
        {
            throw new CommandFailedException($"Failed to empty {path}: {Shell.ShellText.ErrorOf(e)}");
        }
    }

    /// <summary>Looks at the chain, before one of its images is opened for writing.</summary>
    private static async Task<int> FindDepthAsync(string path, string? target, DiskRequest request)
    {
        await using OpenedDisk disk = await Command.OpeningAsync(
            path, () => DiskOpener.OpenAsync(request with { Access = ImageAccess.Read }));
        IReadOnlyList<MapLayer> layers = MapOperation.LayersOf(disk.Source);
        if (target is null)
            return layers.Count > 1 ? 1 : throw new CommandFailedException("Image does not have a backing file");
        for (int depth = 1; depth < layers.Count; depth++)
        {
            string name = layers[depth].Source.FileName;
            string? stored = (layers[depth - 1].Source as Qcow2Image)?.Header.BackingFile;
            // A relative name starts where the overlay is, as the names in images do.
            string resolved = ImageInfo.ResolveBackingFile(layers[depth - 1].Source.FileName, target);
            if (target == stored || Path.GetFullPath(resolved) == Path.GetFullPath(name))
                return depth;
        }
        throw new CommandFailedException($"Did not find '{target}' in the backing chain of '{path}'");
    }
}
