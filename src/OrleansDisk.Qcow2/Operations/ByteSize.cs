using System.Globalization;

namespace OrleansDisk.Qcow2.Operations;

/// <summary>How reading a size ended.</summary>
public enum ByteSizeResult
{
    Ok,
    NotANumber,
    TooLarge,
}

/// <summary>Sizes as people write them: 10G, 1.5M, 0x10000, 512b.</summary>
public static class ByteSize
{
    private const string Suffixes = "BKMGTPE";

    /// <summary>Reads a size in bytes.</summary>
    public static ByteSizeResult TryParse(string text, out ulong bytes)
    {
        bytes = 0;
        text = text.TrimStart();
        if (text.StartsWith("0x", StringComparison.OrdinalIgnoreCase))
            return ParseHexadecimal(text[2..], out bytes);
        int digits = CountDigits(text, 0);
        if (digits == 0)
            return ByteSizeResult.NotANumber;
        int end = digits;
        bool hasFraction = end < text.Length && text[end] == '.';
        if (hasFraction)
            end += 1 + CountDigits(text, end + 1);
        int unit = end < text.Length ? Suffixes.IndexOf(char.ToUpperInvariant(text[end]), StringComparison.Ordinal) : 0;
        if (unit < 0 || end + 1 < text.Length)
            return ByteSizeResult.NotANumber;
        if (!UInt128.TryParse(text.AsSpan(0, digits), NumberStyles.None, CultureInfo.InvariantCulture, out UInt128 whole)
            || whole > ulong.MaxValue)
        {
            return ByteSizeResult.TooLarge;
        }
        UInt128 total = whole << (10 * unit);
        if (hasFraction)
        {
            double fraction = double.Parse("0" + text[digits..end] + "0", CultureInfo.InvariantCulture);
            if (fraction != 0 && unit == 0)
                return ByteSizeResult.NotANumber;
            total += (UInt128)Math.Round(fraction * (1UL << (10 * unit)), MidpointRounding.AwayFromZero);
        }
        if (total > ulong.MaxValue)
            return ByteSizeResult.TooLarge;
        bytes = (ulong)total;
        return ByteSizeResult.Ok;
    }

    private static ByteSizeResult ParseHexadecimal(string digits, out ulong bytes)
    {
        bytes = 0;
        if (digits.Length == 0 || !digits.All(char.IsAsciiHexDigit))
            return ByteSizeResult.NotANumber;
        return ulong.TryParse(digits, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out bytes)
            ? ByteSizeResult.Ok : ByteSizeResult.TooLarge;
    }

    private static int CountDigits(string text, int start)
    {
        int end = start;
        while (end < text.Length && char.IsAsciiDigit(text[end]))
            end++;
        return end - start;
    }
}
