using System.Text;
using OrleansDisk.Cli.Commands;

namespace OrleansDisk.Cli.Help;

/// <summary>What --help prints.</summary>
internal static class HelpText
{
    public static string ForProgram(string program, IReadOnlyList<Command> commands)
    {
        var text = new StringBuilder($"usage: {program} [--version | --help] COMMAND [OPTIONS] FILE ...\n\n");
        foreach (Command command in commands)
            text.Append($"  {command.Name,-12}{command.Summary}\n");
        return text.Append($"\n'{program} COMMAND --help' tells the options of a command.\n").ToString();
    }

    public static string ForCommand(string program, Command command) =>
        $"usage: {program} {Usage(command)}\n\n{command.Summary}.\n\n{command.Help}\n";

    /// <summary>A command with its operands.</summary>
    public static string Usage(Command command)
    {
        string options = command.Options.Count > 0 ? " [OPTIONS]" : "";
        string operands = command.Operands.Length > 0 ? $" {command.Operands}" : "";
        return command.Name + options + operands;
    }
}
