using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Cli.Commands;
using OrleansDisk.Cli.Help;
using OrleansDisk.Cli.Output;

namespace OrleansDisk.Cli;

/// <summary>Finds the command and runs it.</summary>
internal static class Program
{
    /// <summary>All commands, in the order of their names.</summary>
    public static IReadOnlyList<Command> Commands { get; } =
    [
        AmendCommand.Command,
        BenchCommand.Command,
        BitmapCommand.Command,
        CheckCommand.Command,
        CommitCommand.Command,
        CompareCommand.Command,
        CompletionCommand.Command,
        ConvertCommand.Command,
        CreateCommand.Command,
        DdCommand.Command,
        InfoCommand.Command,
        IoCommand.Command,
        ManualCommand.Command,
        MapCommand.Command,
        MeasureCommand.Command,
        NbdCommand.Command,
        RebaseCommand.Command,
        ResizeCommand.Command,
        SnapshotCommand.Command,
    ];

    public static string Version => typeof(Program).Assembly.GetName().Version!.ToString(3);

    public static int Main(string[] arguments)
    {
        var terminal = new Terminal(ProgramName.Value);
        int exitCode = Run(arguments, terminal);
        try
        {
            terminal.Flush();
            return exitCode;
        }
        catch (IOException)
        {
            return 1; // the reader of the output has gone
        }
    }

    private static int Run(string[] arguments, Terminal terminal)
    {
        try
        {
            return Dispatch(arguments, terminal);
        }
        catch (CommandLineException e)
        {
            terminal.Flush();
            terminal.Error(e.Message);
            if (e.ShowsHelpHint)
                Terminal.WriteError($"Try '{terminal.ProgramName} --help' for more information");
            return 1;
        }
        catch (CommandFailedException e)
        {
            terminal.Flush();
            terminal.Error(e.Message);
            if (e.SecondMessage is not null)
                terminal.Error(e.SecondMessage);
            return 1;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            terminal.Flush();
            terminal.Error(e.Message);
            return 1;
        }
    }

    private static int Dispatch(string[] arguments, Terminal terminal)
    {
        // --version and --help are those of the program, whatever it is called.
        string? implied = terminal.ProgramName switch { "qemu-nbd" => NbdCommand.Command.Name, "qemu-io" => IoCommand.Command.Name, _ => null };
        if (implied is not null && arguments is not ["--version" or "-V" or "--help" or "-h", ..])
            arguments = [implied, .. arguments];
        if (arguments.Length == 0)
            throw new CommandLineException("Not enough arguments");
        string word = arguments[0];
        if (word is "--version" or "-V")
        {
            terminal.WriteLine($"{terminal.ProgramName} version {Version} (OrleansDisk)");
            return 0;
        }
        if (word is "--help" or "-h")
        {
            terminal.Write(HelpText.ForProgram(terminal.ProgramName, Commands));
            return 0;
        }
        if (word.StartsWith('-'))
            throw new CommandLineException($"unrecognized option '{word}'");
        Command command = Commands.FirstOrDefault(c => c.Name == word)
            ?? throw new CommandLineException($"Command not found: {word}");
        // A size may begin with a dash, as an option does.
        bool hasLast = command.LastIsOperand && arguments.Length > 2;
        string[] words = hasLast ? arguments[1..^1] : arguments[1..];
        var options = OptionParser.Parse(words, [.. command.Options, Command.HelpOption]);
        if (hasLast)
            options.Operands.Add(arguments[^1]);
        if (options.Has(Command.HelpOption.Name))
        {
            terminal.Write(HelpText.ForCommand(terminal.ProgramName, command));
            return 0;
        }
        return command.RunAsync(options, terminal).GetAwaiter().GetResult();
    }
}
