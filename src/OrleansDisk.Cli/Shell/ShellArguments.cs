using OrleansDisk.Cli.Output;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Cli.Shell;

/// <summary>The words of a command, its options told apart from its operands in the manner of getopt.</summary>
internal sealed class ShellArguments
{
    private readonly List<(char Letter, string Value)> _options = [];

    private ShellArguments(ShellCommand command) => Command = command;

    public ShellCommand Command { get; }

    public List<string> Operands { get; } = [];

    /// <summary>All options in the order in which they were given.</summary>
    public IEnumerable<(char Letter, string Value)> Options => _options;

    public bool Has(char letter) => _options.Exists(option => option.Letter == letter);

    /// <summary>The value that was given last, or null.</summary>
    public string? Value(char letter) => _options.FindLast(option => option.Letter == letter).Value;

    /// <summary>Reads the words behind a command's name.</summary>
    /// <exception cref="ShellUsageException">An option is unknown, or lacks its value.</exception>
    public static ShellArguments Parse(ShellCommand command, IReadOnlyList<string> words)
    {
        var arguments = new ShellArguments(command);
        for (int at = 0; at < words.Count; at++)
        {
            string word = words[at];
            if (word == "--")
            {
                arguments.Operands.AddRange(words.Skip(at + 1));
                break;
            }
            if (word.Length > 1 && word[0] == '-')
                arguments.ParseWord(word, words, ref at);
            else
                arguments.Operands.Add(word);
        }
        return arguments;
    }

    private void ParseWord(string word, IReadOnlyList<string> words, ref int at)
    {
        for (int i = 1; i < word.Length; i++)
        {
            char letter = word[i];
            int known = letter == ':' ? -1 : Command.Letters.IndexOf(letter, StringComparison.Ordinal);
            if (known < 0)
                throw Refused($"{Command.Name}: invalid option -- '{letter}'");
            bool hasValue = known + 1 < Command.Letters.Length && Command.Letters[known + 1] == ':';
            if (!hasValue)
            {
                _options.Add((letter, ""));
                continue;
            }
            string? value = i + 1 < word.Length ? word[(i + 1)..] : at + 1 < words.Count ? words[++at] : null;
            _options.Add((letter, value ?? throw Refused($"{Command.Name}: option requires an argument -- '{letter}'")));
            return;
        }
    }

    private ShellUsageException Refused(string complaint)
    {
        Terminal.WriteError(complaint);
        return new ShellUsageException(Command);
    }
}

/// <summary>A command can't be read; its usage line is shown.</summary>
internal sealed class ShellUsageException(ShellCommand command) : Exception
{
    public ShellCommand Command => command;
}

/// <summary>A word of a command means nothing; the message goes where results go.</summary>
internal sealed class ShellException(string message) : Exception(message);

/// <summary>Reads the numbers of a command.</summary>
internal static class ShellNumber
{
    /// <summary>A number of bytes, with its suffix.</summary>
    public static long Bytes(string text) => ByteSize.TryParse(text, out ulong bytes) switch
    {
        ByteSizeResult.Ok when bytes <= long.MaxValue => (long)bytes,
        ByteSizeResult.NotANumber =>
            throw new ShellException($"Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- {text}"),
        _ => throw new ShellException($"Parsing error: argument too large -- {text}"),
    };

    /// <summary>A byte in decimal, octal behind 0 or hexadecimal behind 0x.</summary>
    public static byte Pattern(string text) => TryInteger(text, out long value) && value <= byte.MaxValue
        ? (byte)value : throw new ShellException($"{text} is not a valid pattern byte");

    /// <summary>A number that is not negative, in decimal, octal or hexadecimal.</summary>
    public static bool TryInteger(string text, out long value)
    {
        (string digits, int radix) = text switch
        {
            ['0', 'x' or 'X', .. string hexadecimal] => (hexadecimal, 16),
            ['0', _, ..] => (text[1..], 8),
            _ => (text, 10),
        };
        value = 0;
        if (digits.Length is 0 or > 18)
            return false;
        foreach (char c in digits)
        {
            int digit = char.IsAsciiHexDigit(c) ? Convert.ToInt32(c.ToString(), 16) : radix;
            if (digit >= radix)
                return false;
            value = (value * radix) + digit;
        }
        return value >= 0;
    }
}
