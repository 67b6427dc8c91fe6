using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Cli.Help;
using OrleansDisk.Cli.Output;

namespace OrleansDisk.Cli.Commands;

/// <summary>odisk completion: a script for a shell.</summary>
internal static class CompletionCommand
{
    private const string Help = """
        SHELL is bash, zsh or fish:

        bash: odisk completion bash > /usr/share/bash-completion/completions/odisk

        zsh: odisk completion zsh > /usr/share/zsh/site-functions/_odisk

        fish: odisk completion fish > /usr/share/fish/vendor_completions.d/odisk.fish
        """;

    public static Command Command { get; } = new("completion", "Print a completion script for a shell", Help, [], RunAsync)
    {
        Operands = "SHELL",
    };

    private static Task<int> RunAsync(ParsedOptions options, Terminal terminal)
    {
        string shell = options.Operands.Count == 1 ? options.Operands[0]
            : throw new CommandLineException("Expecting one shell: bash, zsh or fish");
        terminal.Write(shell switch
        {
            "bash" => Completion.Bash(Program.Commands),
            "zsh" => Completion.Zsh(Program.Commands),
            "fish" => Completion.Fish(Program.Commands),
            _ => throw new CommandLineException($"No completion for '{shell}': it is bash, zsh or fish"),
        });
        return Task.FromResult(0);
    }
}
