using System.Text;
using OrleansDisk.Cli.Commands;

namespace OrleansDisk.Cli.Help;

/// <summary>Scripts by which a shell completes the commands and options of odisk.</summary>
internal static class Completion
{
    public static string Bash(IReadOnlyList<Command> commands)
    {
        var text = new StringBuilder($$"""
            _odisk() {
                local word=${COMP_WORDS[COMP_CWORD]} options=
                if ((COMP_CWORD == 1)); then
                    mapfile -t COMPREPLY < <(compgen -W '{{string.Join(' ', commands.Select(c => c.Name))}}' -- "$word")
                    return
                fi
                case ${COMP_WORDS[1]} in

            """);
        foreach (Command command in commands)
            text.Append($"        {command.Name}) options='{string.Join(' ', OptionsOf(command).SelectMany(WordsOf))}' ;;\n");
        return text.Append("""
                esac
                if [[ $word == -* ]]; then
                    mapfile -t COMPREPLY < <(compgen -W "$options" -- "$word")
                    if [[ ${COMPREPLY[0]-} == *= ]]; then compopt -o nospace; fi
                else
                    mapfile -t COMPREPLY < <(compgen -f -- "$word")
                    compopt -o filenames
                fi
            } 2>/dev/null
            complete -F _odisk odisk

            """).ToString();
    }

    public static string Zsh(IReadOnlyList<Command> commands)
    {
        var text = new StringBuilder("#compdef odisk\nlocal -a commands=(\n");
        foreach (Command command in commands)
            text.Append($"    '{command.Name}:{EscapeZsh(command.Summary)}'\n");
        text.Append("""
            )
            if ((CURRENT == 2)); then
                _describe command commands
                return
            fi
            local command=$words[2]
            shift words
            ((CURRENT--))
            case $command in

            """);
        foreach (Command command in commands)
        {
            text.Append($"    {command.Name})\n        _arguments -s '*:file:_files'");
            foreach (HelpEntry option in OptionsOf(command))
            {
                foreach (string name in option.Names)
                {
                    string value = option.Argument is null ? "" : $":{EscapeZsh(option.Argument)}:_files";
                    string joined = option.Argument is not null && IsLong(name) ? "=" : "";
                    text.Append($" \\\n            '*{name}{joined}[{EscapeZsh(option.Text)}]{value}'");
                }
            }
            text.Append("\n        ;;\n");
        }
        return text.Append("esac\n").ToString();
    }

    public static string Fish(IReadOnlyList<Command> commands)
    {
        var text = new StringBuilder();
        foreach (Command command in commands)
        {
            text.Append($"complete -c odisk -n __fish_use_subcommand -f -a {command.Name} -d '{EscapeFish(command.Summary)}'\n");
            foreach (HelpEntry option in OptionsOf(command))
            {
                text.Append($"complete -c odisk -n '__fish_seen_subcommand_from {command.Name}'");
                foreach (string name in option.Names)
                    text.Append(IsLong(name) ? $" -l {name[2..]}" : $" -s {name[1..]}");
                text.Append($"{(option.Argument is null ? "" : " -r")} -d '{EscapeFish(option.Text)}'\n");
            }
        }
        return text.ToString();
    }

    private static IEnumerable<HelpEntry> OptionsOf(Command command) =>
        HelpEntry.ParseAll(command.Help).Where(entry => entry.IsOption).Append(new HelpEntry(["-h", "--help"], null, "tell the options"));

    private static IEnumerable<string> WordsOf(HelpEntry option) =>
        option.Names.Select(name => option.Argument is not null && IsLong(name) ? name + "=" : name);

    private static bool IsLong(string name) => name.StartsWith("--", StringComparison.Ordinal);

    private static string EscapeZsh(string text) => text.Replace("\\", "\\\\", StringComparison.Ordinal)
        .Replace("'", "'\\''", StringComparison.Ordinal).Replace(":", "\\:", StringComparison.Ordinal)
        .Replace("[", "\\[", StringComparison.Ordinal).Replace("]", "\\]", StringComparison.Ordinal);

    private static string EscapeFish(string text) =>
        text.Replace("\\", "\\\\", StringComparison.Ordinal).Replace("'", "\\'", StringComparison.Ordinal);
}
