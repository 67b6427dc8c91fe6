namespace OrleansDisk.Cli.Help;

/// <summary>
/// A paragraph of a command's help, or what it says of an option. The text that --help prints is the one source:
/// the manual page and the completion scripts are made from what is read from it here.
/// </summary>
/// <param name="Names">The option's names with their dashes; none for a paragraph.</param>
/// <param name="Argument">What the option's value is called, or null when it has none.</param>
/// <param name="Text">The paragraph, or what the option does.</param>
internal sealed record HelpEntry(IReadOnlyList<string> Names, string? Argument, string Text)
{
    /// <summary>Options stand this far from the margin, those without a letter below the long names of the others.</summary>
    private const int MaxOptionIndent = 6;

    public bool IsOption => Names.Count > 0;

    /// <summary>Reads a command's help.</summary>
    public static IReadOnlyList<HelpEntry> ParseAll(string help)
    {
        var entries = new List<HelpEntry>();
        bool goesOn = false;
        foreach (string line in help.Split('\n'))
        {
            string text = line.Trim();
            int indent = line.Length - line.TrimStart().Length;
            if (text.Length > 0 && text[0] == '-' && indent is > 0 and <= MaxOptionIndent)
                entries.Add(ParseOption(text));
            else if (goesOn && text.Length > 0 && (indent > 0) == entries[^1].IsOption)
                entries[^1] = entries[^1] with { Text = $"{entries[^1].Text} {text}".TrimStart() };
            else if (text.Length > 0)
                entries.Add(new HelpEntry([], null, text));
            goesOn = text.Length > 0;
        }
        return entries;
    }

    /// <summary>Reads a line such as <c>-k, --socket=PATH   listen on a unix socket</c>.</summary>
    private static HelpEntry ParseOption(string line)
    {
        int end = line.IndexOf("  ", StringComparison.Ordinal);
        string flags = end < 0 ? line : line[..end];
        var names = new List<string>();
        string? argument = null;
        foreach (string part in flags.Split(", "))
        {
            int nameEnd = part.IndexOfAny(['=', ' ']);
            names.Add(nameEnd < 0 ? part : part[..nameEnd]);
            if (nameEnd >= 0)
                argument = part[(nameEnd + 1)..];
        }
        return new HelpEntry(names, argument, end < 0 ? "" : line[end..].Trim());
    }
}
