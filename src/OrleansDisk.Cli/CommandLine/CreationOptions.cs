using System.Globalization;
using System.Text;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Cli.CommandLine;

/// <summary>The options of -o: name=value pairs between commas, where two commas stand for one.</summary>
internal sealed class CreationOptions
{
    private readonly Dictionary<string, string> _values = new(StringComparer.Ordinal);
    private readonly HashSet<string> _known;

    private CreationOptions(IEnumerable<string> known) => _known = new HashSet<string>(known, StringComparer.Ordinal);

    /// <summary>Whether a list asks for the names that it may have.</summary>
    public static bool AsksForHelp(string list) => Split(list).Exists(o => o is "help" or "?");

    /// <summary>Refuses lists that begin or end with a comma.</summary>
    public static void ValidateLists(IEnumerable<string> lists)
    {
        foreach (string list in lists)
        {
            if (list.Length == 0 || list[0] == ',' || EndsWithSingleComma(list))
                throw new CommandFailedException($"Invalid option list: {list}");
        }
    }

    /// <summary>Reads all lists, the last value of a name counting.</summary>
    /// <exception cref="CommandFailedException">A name is unknown.</exception>
    public static CreationOptions Parse(IEnumerable<string> lists, IEnumerable<string> knownNames)
    {
        var options = new CreationOptions(knownNames);
        foreach (string option in lists.Where(list => list.Length > 0).SelectMany(Split))
            options.Set(option);
        return options;
    }

    public string? this[string name] => _values.GetValueOrDefault(name);

    public void Set(string name, string value) => _values[name] = value;

    /// <summary>Sets what was not given.</summary>
    public void SetDefault(string name, string value) => _values.TryAdd(name, value);

    /// <summary>A size of at least 0 and below 2^64, or null when it was not given.</summary>
    public ulong? Size(string name)
    {
        if (!_values.TryGetValue(name, out string? text))
            return null;
        switch (ByteSize.TryParse(text, out ulong bytes))
        {
            case ByteSizeResult.NotANumber:
                throw new CommandFailedException($"Parameter '{name}' expects a non-negative number below 2^64\n"
                    + "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\nand exabytes, respectively.");
            case ByteSizeResult.TooLarge:
                throw new CommandFailedException($"Value '{text}' is out of range for parameter '{name}'");
            default:
                return bytes;
        }
    }

    /// <summary>A number in decimal, or hexadecimal after 0x; null when it was not given.</summary>
    public long? Number(string name)
    {
        if (!_values.TryGetValue(name, out string? text))
            return null;
        bool isHexadecimal = text.StartsWith("0x", StringComparison.OrdinalIgnoreCase);
        bool isNumber = isHexadecimal
            ? long.TryParse(text.AsSpan(2), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out long number)
            : long.TryParse(text, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out number);
        return isNumber ? number : throw new CommandFailedException($"Parameter '{name}' expects a number");
    }

    /// <summary>on or off, in QEMU's spellings; false when it was not given.</summary>
    public bool Switch(string name) => _values.GetValueOrDefault(name, "off") switch
    {
        "on" or "yes" or "true" or "y" => true,
        "off" or "no" or "false" or "n" => false,
        _ => throw new CommandFailedException($"Parameter '{name}' expects 'on' or 'off'"),
    };

    private void Set(string option)
    {
        int equals = option.IndexOf('=', StringComparison.Ordinal);
        string name = equals < 0 ? option : option[..equals];
        string value = equals < 0 ? "on" : option[(equals + 1)..];
        if (equals < 0 && name.StartsWith("no", StringComparison.Ordinal) && _known.Contains(name[2..]))
            (name, value) = (name[2..], "off");
        if (!_known.Contains(name))
            throw new CommandFailedException($"Invalid parameter '{name}'");
        _values[name] = value;
    }

    private static bool EndsWithSingleComma(string list) => (list.Length - list.TrimEnd(',').Length) % 2 == 1;

    /// <summary>A list without the options of one name.</summary>
    public static string Without(string name, string list) => string.Join(',', Split(list)
        .Where(option => option != name && !option.StartsWith(name + "=", StringComparison.Ordinal))
        .Select(option => option.Replace(",", ",,", StringComparison.Ordinal)));

    /// <summary>The options of a list; two commas stand for one that belongs to an option.</summary>
    public static List<string> Split(string list)
    {
        var parts = new List<string>();
        var part = new StringBuilder();
        for (int i = 0; i < list.Length; i++)
        {
            if (list[i] != ',')
            {
                part.Append(list[i]);
            }
            else if (i + 1 < list.Length && list[i + 1] == ',')
            {
                part.Append(',');
                i++;
            }
            else
            {
                parts.Add(part.ToString());
                part.Clear();
            }
        }
        parts.Add(part.ToString());
        return parts;
    }
}
