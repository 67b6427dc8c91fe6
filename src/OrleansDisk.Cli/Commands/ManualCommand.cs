using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Cli.Help;
using OrleansDisk.Cli.Output;

namespace OrleansDisk.Cli.Commands;

/// <summary>odisk man: the manual page.</summary>
internal static class ManualCommand
{
    private const string Help = """
        Read it with: odisk man | man -l -

        Install it with: odisk man > /usr/share/man/man1/odisk.1
        """;

    public static Command Command { get; } = new("man", "Print the manual page of all commands", Help, [], RunAsync)
    {
        Operands = "",
    };

    private static Task<int> RunAsync(ParsedOptions options, Terminal terminal)
    {
        if (options.Operands.Count > 0)
            throw new CommandLineException($"Unexpected argument: {options.Operands[0]}");
        terminal.Write(ManualPage.Of(Program.Commands, Program.Version));
        return Task.FromResult(0);
    }
}
