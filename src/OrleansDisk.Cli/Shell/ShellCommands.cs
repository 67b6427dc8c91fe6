namespace OrleansDisk.Cli.Shell;

/// <summary>All commands of the shell.</summary>
internal static class ShellCommands
{
    /// <summary>The commands by their names' order.</summary>
    public static IReadOnlyList<ShellCommand> All { get; } =
    [
        .. TransferCommands.All.Concat(DiskCommands.All).Concat(OpenCommands.All).Concat(ControlCommands.All)
            .OrderBy(command => command.Name, StringComparer.Ordinal),
    ];

    /// <summary>The command of a name, or null.</summary>
    public static ShellCommand? Find(string name) =>
        All.FirstOrDefault(command => command.Name == name || command.ShortName == name);
}
