using System.Globalization;

namespace OrleansDisk.Cli.CommandLine;

/// <summary>How reading a size ended.</summary>
internal enum SizeTextResult
{
    Ok,
    NotANumber,
    TooLarge,
}

/// <summary>Sizes as people write them: 10G, 1.5M, 0x10000, 512b.</summary>
internal static class SizeText
{
    private const string Suffixes = "BKMGTPE";

    /// <summary>Reads a size in bytes.</summary>
    public static SizeTextResult TryParse(string text, out ulong bytes)
    {
        bytes = 0;
        text = text.TrimStart();
        if (text.StartsWith("0x", StringComparison.OrdinalIgnoreCase))
            return ParseHexadecimal(text[2..], out bytes);
        int digits = CountDigits(text, 0);
        if (digits == 0)
            return SizeTextResult.NotANumber;
        int end = digits;
        bool hasFraction = end < text.Length && text[end] == '.';
        if (hasFraction)
            end += 1 + CountDigits(text, end + 1);
        int unit = end < text.Length ? Suffixes.IndexOf(char.ToUpperInvariant(text[end]), StringComparison.Ordinal) : 0;
        if (unit < 0 || end + 1 < text.Length)
            return SizeTextResult.NotANumber;
        if (!UInt128.TryParse(text.AsSpan(0, digits), NumberStyles.None, CultureInfo.InvariantCulture, out UInt128 whole)
            || whole > ulong.MaxValue)
        {
            return SizeTextResult.TooLarge;
        }
        UInt128 total = whole << (10 * unit);
        if (hasFraction)
        {
            double fraction = double.Parse("0" + text[digits..end] + "0", CultureInfo.InvariantCulture);
            if (fraction != 0 && unit == 0)
                return SizeTextResult.NotANumber;
            total += (UInt128)Math.Round(fraction * (1UL << (10 * unit)), MidpointRounding.AwayFromZero);
        }
        if (total > ulong.MaxValue)
            return SizeTextResult.TooLarge;
        bytes = (ulong)total;
        return SizeTextResult.Ok;
    }

    /// <summary>Reads the size of a disk: 0 to 2^63 - 1.</summary>
    /// <exception cref="CommandFailedException">It is none.</exception>
    public static long ParseImageSize(string text)
    {
        SizeTextResult result = TryParse(text, out ulong bytes);
        if (result == SizeTextResult.TooLarge || bytes > long.MaxValue)
            throw new CommandFailedException($"Invalid image size specified. Must be between 0 and {long.MaxValue}.");
        if (result == SizeTextResult.NotANumber)
        {
            throw new CommandFailedException("Invalid image size specified. You may use k, M, G, T, P or E suffixes for",
                "kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.");
        }
        return (long)bytes;
    }

    private static SizeTextResult ParseHexadecimal(string digits, out ulong bytes)
    {
        bytes = 0;
        if (digits.Length == 0 || !digits.All(char.IsAsciiHexDigit))
            return SizeTextResult.NotANumber;
        return ulong.TryParse(digits, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out bytes)
            ? SizeTextResult.Ok : SizeTextResult.TooLarge;
    }

    private static int CountDigits(string text, int start)
    {
        int end = start;
        while (end < text.Length && char.IsAsciiDigit(text[end]))
            end++;
        return end - start;
    }
}
