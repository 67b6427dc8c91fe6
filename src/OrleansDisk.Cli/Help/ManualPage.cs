using System.Text;
using OrleansDisk.Cli.Commands;

namespace OrleansDisk.Cli.Help;

/// <summary>The manual page odisk(1), in the man macros of roff.</summary>
internal static class ManualPage
{
    public static string Of(IReadOnlyList<Command> commands, string version)
    {
        var text = new StringBuilder($"""
            .TH ODISK 1 "" "OrleansDisk {version}" "User Commands"
            .SH NAME
            odisk \- disk images of virtual machines from a shell
            .SH SYNOPSIS
            .B odisk
            .I COMMAND
            .RI [ OPTIONS ]
            .IR FILE " ..."
            .SH DESCRIPTION
            .B odisk
            makes, looks at, changes and serves qcow2 images. Its commands, their options and their output are those of
            .BR qemu\-img ,
            .B qemu\-io
            and
            .BR qemu\-nbd .
            Started under one of these names, by a link, it behaves as that program.
            .SH COMMANDS

            """);
        foreach (Command command in commands)
            Append(text, command);
        return text.ToString();
    }

    private static void Append(StringBuilder text, Command command)
    {
        text.Append($".SS \"{Escape(HelpText.Usage(command))}\"\n{Escape(command.Summary)}.\n");
        foreach (HelpEntry entry in HelpEntry.ParseAll(command.Help))
        {
            if (entry.IsOption)
            {
                string argument = entry.Argument is null ? "" : $" \\fI{Escape(entry.Argument)}\\fR";
                text.Append($".TP\n\\fB{Escape(string.Join(", ", entry.Names))}\\fR{argument}\n{Escape(entry.Text)}\n");
            }
            else
            {
                text.Append($".PP\n{Escape(entry.Text)}\n");
            }
        }
    }

    /// <summary>Text as roff prints it: a dash that can be copied, no line that looks like a request.</summary>
    private static string Escape(string text)
    {
        string escaped = text.Replace("\\", "\\e", StringComparison.Ordinal).Replace("-", "\\-", StringComparison.Ordinal)
            .Replace("\"", "\\(dq", StringComparison.Ordinal);
        return escaped.StartsWith('.') || escaped.StartsWith('\'') ? "\\&" + escaped : escaped;
    }
}
