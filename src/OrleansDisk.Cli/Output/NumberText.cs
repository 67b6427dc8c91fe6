using System.Globalization;

namespace OrleansDisk.Cli.Output;

/// <summary>Numbers as the C library prints them, ties rounded to even.</summary>
internal static class NumberText
{
    private static readonly string[] _units = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

    /// <summary>A size with three significant digits and a unit: 1 MiB, 1.64 MiB, 196 KiB.</summary>
    public static string Size(ulong bytes)
    {
        // The next unit is used from 1000 of the last on, so that four digits never appear.
        int unit = 0;
        while (unit < _units.Length - 1 && (UInt128)bytes >= (UInt128)1000 << (10 * unit))
            unit++;
        (int decimals, UInt128 scale) = ScaleFor(bytes, 10 * unit);
        UInt128 divisor = (UInt128)1 << (10 * unit);
        UInt128 rounded = DivideToEven((UInt128)bytes * scale, divisor);
        string digits = rounded.ToString(CultureInfo.InvariantCulture).PadLeft(decimals + 1, '0');
        if (decimals > 0)
            digits = $"{digits[..^decimals]}.{digits[^decimals..]}".TrimEnd('0').TrimEnd('.');
        return $"{(digits == "1000" ? "1e+03" : digits)} {_units[unit]}B";
    }

    /// <summary>100 * part / whole with two decimals.</summary>
    public static string Percentage(long part, long whole)
    {
        double value = part * 100.0 / whole;
        // Only eighths lie exactly between two hundredths; every other value rounds the same in both ways.
        bool isTie = value * 8 % 2 == 1;
        return (isTie ? Math.Round(value, 2, MidpointRounding.ToEven) : value).ToString("F2", CultureInfo.InvariantCulture);
    }

    private static (int Decimals, UInt128 Scale) ScaleFor(ulong bytes, int shift)
    {
        ulong whole = bytes >> shift;
        return whole switch
        {
            >= 100 => (0, 1),
            >= 10 => (1, 10),
            >= 1 => (2, 100),
            _ => (3, 1000),
        };
    }

    private static UInt128 DivideToEven(UInt128 value, UInt128 divisor)
    {
        (UInt128 quotient, UInt128 remainder) = UInt128.DivRem(value, divisor);
        int order = (remainder * 2).CompareTo(divisor);
        return order > 0 || (order == 0 && !UInt128.IsEvenInteger(quotient)) ? quotient + 1 : quotient;
    }
}
