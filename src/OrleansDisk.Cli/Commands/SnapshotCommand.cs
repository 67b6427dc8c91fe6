using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Cli.Opening;
using OrleansDisk.Cli.Output;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Concurrency;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Cli.Commands;

/// <summary>odisk snapshot: the internal snapshots of an image.</summary>
internal static class SnapshotCommand
{
    private const string Help = """
          -l                  list the snapshots (default: open the image and do nothing)
          -a SNAPSHOT         make the disk what it was when the snapshot was taken
          -c SNAPSHOT         take a snapshot with this name
          -d SNAPSHOT         delete the snapshot with this name
          -q                  print errors only
          -U, --force-share   open the image even while someone writes it
          --image-opts        FILE is a list of options: driver=qcow2,file.filename=...
          --object OBJECT     secret,id=ID,data=TEXT|file=FILE,format=raw|base64

        What -a takes is an id or, if no snapshot has that id, a name.
        """;

    private const string OperationNotSupported = "Operation not supported";

    private static readonly OptionSpec[] s_actions =
    [
        new('l', null, HasValue: false), new('a', null, HasValue: true), new('c', null, HasValue: true), new('d', null, HasValue: true),
    ];

    public static Command Command { get; } = new(
        "snapshot", "List, take, apply and delete internal snapshots", Help,
        [.. s_actions, Command.QuietOption, Command.ShareOption, Command.ImageOptsOption, Command.ObjectOption],
        RunAsync);

    private static async Task<int> RunAsync(ParsedOptions options, Terminal terminal)
    {
        string[] actions = [.. s_actions.SelectMany(action => options.Values(action.Name).Select(_ => action.Name))];
        if (actions.Length > 1)
            throw new CommandLineException("Cannot mix '-l', '-a', '-c', '-d'");
        string path = Command.SingleFile(options);
        string action = actions.FirstOrDefault("");
        DiskRequest request = Command.RequestOf(options, path, action == "l" ? ImageAccess.Read : ImageAccess.Write);
        return await new ImageTurns().RunAsync(async () =>
        {
            await using OpenedDisk disk = await Command.OpeningAsync(path, () => DiskOpener.OpenAsync(request));
            await RunAsync(action, options.Value(action) ?? "", disk.Image, terminal);
            return 0;
        });
    }

    private static Task RunAsync(string action, string name, Qcow2Image? image, Terminal terminal) => action switch
    {
        "l" => ListAsync(image, terminal),
        "c" => CreateAsync(image, name),
        "a" => ApplyAsync(image, name),
        "d" => DeleteAsync(image, name),
        _ => Task.CompletedTask,
    };

    private static async Task ListAsync(Qcow2Image? image, Terminal terminal)
    {
        if (image is not null && await image.ListSnapshotsAsync() is { Count: > 0 } snapshots)
            terminal.Write(InfoText.SnapshotList(snapshots));
    }

    private static async Task CreateAsync(Qcow2Image? image, string name)
    {
        if (image is null)
            throw NotCreated(name, -95, OperationNotSupported);
        try
        {
            await image.CreateSnapshotAsync(new SnapshotDescription { Name = name, Date = DateTimeOffset.UtcNow, InstructionCount = 0 });
        }
        catch (NoSpaceException)
        {
            throw NotCreated(name, -28, "No space left on device");
        }
        catch (SnapshotException e)
        {
            (int number, string text) = ErrorOf(e);
            throw NotCreated(name, number, text);
        }
    }

    private static async Task ApplyAsync(Qcow2Image? image, string name)
    {
        if (image is null)
            throw NotApplied(name, "Block driver does not support snapshots");
        try
        {
            await image.ApplySnapshotAsync(name);
        }
        catch (SnapshotException e)
        {
            throw NotApplied(name, e.Error == SnapshotError.HasBitmaps ? e.Message : $"Failed to load snapshot: {ErrorOf(e).Text}");
        }
        catch (IOException e)
        {
            throw NotApplied(name, e.Message);
        }
    }

    /// <summary>Names alone, as qemu-img has it: a script that deletes "1" must not hit the snapshot that came first.</summary>
    private static async Task DeleteAsync(Qcow2Image? image, string name)
    {
        SnapshotEntry? found = image is null ? null : (await image.ListSnapshotsAsync()).FirstOrDefault(snapshot => snapshot.Name == name);
        if (found is null)
            throw new CommandFailedException($"Could not delete snapshot '{name}': snapshot not found");
        try
        {
            await image!.DeleteSnapshotAsync(found.Id);
        }
        catch (IOException e)
        {
            throw new CommandFailedException($"Could not delete snapshot '{name}': {e.Message}");
        }
    }

    private static CommandFailedException NotCreated(string name, int number, string text) =>
        new($"Could not create snapshot '{name}': {number} ({text})");

    private static CommandFailedException NotApplied(string name, string why) => new($"Could not apply snapshot '{name}': {why}");

    /// <summary>The system's number and words for an error, as scripts know them from qemu-img.</summary>
    private static (int Number, string Text) ErrorOf(SnapshotException e) => e.Error switch
    {
        SnapshotError.NotFound => (-2, "No such file or directory"),
        SnapshotError.TooLarge => (-27, "File too large"),
        SnapshotError.RefcountsFull => (-22, "Invalid argument"),
        _ => (-95, OperationNotSupported),
    };
}
