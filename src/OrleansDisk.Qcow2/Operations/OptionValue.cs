using System.Globalization;

namespace OrleansDisk.Qcow2.Operations;

/// <summary>Values of options as QEMU reads them, with its answers to what means nothing.</summary>
internal static class OptionValue
{
    /// <summary>on or off, in all spellings; null when it is not given.</summary>
    public static bool? Switch(IReadOnlyDictionary<string, string> values, string name) => values.GetValueOrDefault(name) switch
    {
        null => null,
        "on" or "yes" or "true" or "y" => true,
        "off" or "no" or "false" or "n" => false,
        _ => throw new Qcow2Exception($"Parameter '{name}' expects 'on' or 'off'"),
    };

    /// <summary>A size in bytes, which may have a suffix; null when it is not given. Sizes from 2^63 on are as good as 2^63 - 1.</summary>
    public static long? Size(IReadOnlyDictionary<string, string> values, string name)
    {
        if (!values.TryGetValue(name, out string? text))
            return null;
        return ByteSize.TryParse(text, out ulong bytes) switch
        {
            ByteSizeResult.Ok => (long)Math.Min(bytes, long.MaxValue),
            ByteSizeResult.TooLarge => throw new Qcow2Exception($"Value '{text}' is out of range for parameter '{name}'"),
            _ => throw new Qcow2Exception($"Parameter '{name}' expects a non-negative number below 2^64\n"
                + "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\nand exabytes, respectively."),
        };
    }

    /// <summary>A number of 64 bits, a negative one as QEMU reads it: 2^64 less; null when it is not given.</summary>
    public static ulong? Number(IReadOnlyDictionary<string, string> values, string name)
    {
        if (!values.TryGetValue(name, out string? text))
            return null;
        if (text.StartsWith('-') && long.TryParse(text, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out long negative))
            return (ulong)negative;
        bool isHexadecimal = text.StartsWith("0x", StringComparison.OrdinalIgnoreCase);
        bool isNumber = isHexadecimal
            ? ulong.TryParse(text.AsSpan(2), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out ulong number)
            : ulong.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out number);
        return isNumber ? number : throw new Qcow2Exception($"Parameter '{name}' expects a number");
    }
}
