using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Cli.Opening;
using OrleansDisk.Qcow2;

namespace OrleansDisk.Cli.Commands;

/// <summary>The option -l of commands that read an internal snapshot in place of the disk.</summary>
internal static class SnapshotView
{
    private const string Prefix = "snapshot.";

    public static OptionSpec Option { get; } = new('l', null, HasValue: true);

    /// <summary>Which snapshot -l means: ID|NAME, or snapshot.id=ID,snapshot.name=NAME; null without -l.</summary>
    /// <exception cref="CommandFailedException">It means nothing.</exception>
    public static SnapshotSelector? Of(ParsedOptions options)
    {
        if (options.Value("l") is not { } text)
            return null;
        try
        {
            return Parse(text);
        }
        catch (CommandFailedException e)
        {
            throw new CommandFailedException(e.Message, $"Failed in parsing snapshot param '{text}'");
        }
    }

    /// <summary>Which snapshot a word means: ID|NAME, or snapshot.id=ID,snapshot.name=NAME.</summary>
    /// <exception cref="CommandFailedException">It means nothing.</exception>
    public static SnapshotSelector Parse(string text)
    {
        if (!text.StartsWith(Prefix, StringComparison.Ordinal))
            return new SnapshotSelector { IdOrName = text };
        var values = CreationOptions.Parse([text], [Prefix + "id", Prefix + "name"]);
        return new SnapshotSelector { Id = values[Prefix + "id"], Name = values[Prefix + "name"] };
    }

    /// <summary>Opens a disk, or the snapshot of it that the request names.</summary>
    /// <exception cref="CommandFailedException">It can't be had.</exception>
    public static async Task<OpenedDisk> OpenAsync(DiskRequest request)
    {
        OpenedDisk disk;
        try
        {
            disk = await DiskOpener.OpenAsync(request);
        }
        catch (SnapshotException e)
        {
            throw Refused(e.Error == SnapshotError.NotFound ? "Can't find snapshot" : e.Message);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or CommandFailedException)
        {
            throw new CommandFailedException($"Could not open '{request.DisplayName}': {e.Message}");
        }
        if (request.Snapshot is null || disk.Image is not null)
            return disk;
        await disk.DisposeAsync();
        throw Refused($"Block format '{disk.Source.Format}' used by device '' does not support feature 'temporarily load internal snapshot'");
    }

    private static CommandFailedException Refused(string reason) => new($"Failed to load snapshot: {reason}");
}
