namespace OrleansDisk.Cli.CommandLine;

/// <summary>An option that a command knows.</summary>
/// <param name="Short">Its letter, or '\0'.</param>
/// <param name="Long">Its long name without dashes, or null.</param>
/// <param name="HasValue">Whether a value follows.</param>
internal sealed record OptionSpec(char Short, string? Long, bool HasValue)
{
    /// <summary>How the option is asked for in <see cref="ParsedOptions"/>.</summary>
    public string Name { get; init; } = Long ?? Short.ToString();
}

/// <summary>The options and operands that were given.</summary>
internal sealed class ParsedOptions(IReadOnlyList<string> arguments)
{
    /// <summary>All words as they were given.</summary>
    public IReadOnlyList<string> Arguments => arguments;

    private readonly List<(string Name, string Value)> _options = [];

    public List<string> Operands { get; } = [];

    /// <summary>The options with their values, in the order in which they were given.</summary>
    public IReadOnlyList<(string Name, string Value)> Options => _options;

    public bool Has(string name) => _options.Exists(o => o.Name == name);

    /// <summary>The value that was given last, or null.</summary>
    public string? Value(string name) => _options.FindLast(o => o.Name == name).Value;

    /// <summary>All values that were given, in order.</summary>
    public IEnumerable<string> Values(string name) => _options.Where(o => o.Name == name).Select(o => o.Value);

    public void Add(OptionSpec option, string value) => _options.Add((option.Name, value));
}

/// <summary>
/// Reads options in the manner of getopt_long: letters in one word, values attached or in the next word, long names
/// with = or in the next word and shortened to where they are unique, operands in between, -- to end the options.
/// </summary>
internal static class OptionParser
{
    /// <exception cref="CommandLineException">An option is unknown, or lacks or has a value that it should not.</exception>
    public static ParsedOptions Parse(IReadOnlyList<string> arguments, IReadOnlyList<OptionSpec> known)
    {
        var parsed = new ParsedOptions(arguments);
        for (int at = 0; at < arguments.Count; at++)
        {
            string word = arguments[at];
            if (word == "--")
            {
                parsed.Operands.AddRange(arguments.Skip(at + 1));
                break;
            }
            if (word.StartsWith("--", StringComparison.Ordinal))
                ParseLong(parsed, word, known, arguments, ref at);
            else if (word.Length > 1 && word[0] == '-')
                ParseShort(parsed, word, known, arguments, ref at);
            else
                parsed.Operands.Add(word);
        }
        return parsed;
    }

    private static void ParseLong(
        ParsedOptions parsed, string word, IReadOnlyList<OptionSpec> known, IReadOnlyList<string> arguments, ref int at)
    {
        int equals = word.IndexOf('=', StringComparison.Ordinal);
        string name = equals < 0 ? word[2..] : word[2..equals];
        OptionSpec? option = known.FirstOrDefault(o => o.Long == name);
        if (option is null)
        {
            OptionSpec[] matches = [.. known.Where(o => o.Long?.StartsWith(name, StringComparison.Ordinal) == true)];
            option = matches.Length == 1 && name.Length > 0 ? matches[0] : throw Unrecognized(word);
        }
        if (!option.HasValue)
        {
            if (equals >= 0)
                throw Unrecognized(word);
            parsed.Add(option, "");
        }
        else
        {
            parsed.Add(option, equals >= 0 ? word[(equals + 1)..] : NextWord(word, arguments, ref at));
        }
    }

    private static void ParseShort(
        ParsedOptions parsed, string word, IReadOnlyList<OptionSpec> known, IReadOnlyList<string> arguments, ref int at)
    {
        for (int letter = 1; letter < word.Length; letter++)
        {
            OptionSpec option = known.FirstOrDefault(o => o.Short == word[letter]) ?? throw Unrecognized(word);
            if (!option.HasValue)
            {
                parsed.Add(option, "");
                continue;
            }
            parsed.Add(option, letter + 1 < word.Length ? word[(letter + 1)..] : NextWord(word, arguments, ref at));
            return;
        }
    }

    private static string NextWord(string option, IReadOnlyList<string> arguments, ref int at) =>
        at + 1 < arguments.Count ? arguments[++at] : throw new CommandLineException($"missing argument for option '{option}'");

    private static CommandLineException Unrecognized(string word) => new($"unrecognized option '{word}'");
}
