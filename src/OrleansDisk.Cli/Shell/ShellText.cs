using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;
using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Cli.Shell;

/// <summary>Sizes, times, dumps and errors in the words of qemu-io.</summary>
internal static class ShellText
{
    private const int InputOutputError = 5;
    private const int InvalidArgument = 22;
    private const int NoSpaceLeft = 28;
    private const int NotSupported = 95;
    private const int NoMedium = 123;
    private const int DumpWidth = 16;

    private static readonly string[] _units = ["EiB", "PiB", "TiB", "GiB", "MiB", "KiB"];

    /// <summary>A size with three decimals, or none where they are zeros: 64 KiB, 1.500 MiB, 12 bytes.</summary>
    public static string Size(double bytes)
    {
        for (int i = 0; i < _units.Length; i++)
        {
            double unit = Math.Pow(1024, _units.Length - i);
            if (bytes >= unit)
                return Trimmed((bytes / unit).ToString("F3", CultureInfo.InvariantCulture), _units[i]);
        }
        return Trimmed(bytes.ToString("F6", CultureInfo.InvariantCulture), "bytes");
    }

    /// <summary>The lines that tell of a request that is done.</summary>
    /// <param name="verb">"wrote", "read" or "discard".</param>
    /// <param name="offset">First byte.</param>
    /// <param name="bytes">Length.</param>
    /// <param name="time">How long it took.</param>
    /// <param name="isParsable">Whether one line of values is wanted in place of the two for people.</param>
    public static string Report(string verb, long offset, long bytes, TimeSpan time, bool isParsable)
    {
        double seconds = Math.Max(time.TotalSeconds, 1e-9);
        string rate = (1 / seconds).ToString(isParsable ? "F3" : "F4", CultureInfo.InvariantCulture);
        if (isParsable)
        {
            string bytesRate = (bytes / seconds).ToString("F3", CultureInfo.InvariantCulture);
            return $"{bytes},1,{Clock(time)},{bytesRate},{rate}\n";
        }
        string duration = time.TotalSeconds < 1
            ? time.TotalSeconds.ToString("00.00", CultureInfo.InvariantCulture) + " sec" : Clock(time);
        return $"{verb} {bytes}/{bytes} bytes at offset {offset}\n"
            + $"{Size(bytes)}, 1 ops; {duration} ({Size(bytes / seconds)}/sec and {rate} ops/sec)\n";
    }

    /// <summary>Bytes in hexadecimal, sixteen a line, with the letters and digits among them beside.</summary>
    public static string Dump(ReadOnlySpan<byte> bytes, long offset)
    {
        var text = new StringBuilder();
        for (int at = 0; at < bytes.Length; at += DumpWidth)
        {
            ReadOnlySpan<byte> line = bytes.Slice(at, Math.Min(DumpWidth, bytes.Length - at));
            text.Append(CultureInfo.InvariantCulture, $"{offset + at:x8}:  ");
            foreach (byte b in line)
                text.Append(CultureInfo.InvariantCulture, $"{b:x2} ");
            text.Append(' ');
            foreach (byte b in line)
                text.Append(char.IsAsciiLetterOrDigit((char)b) ? (char)b : '.');
            text.Append('\n');
        }
        return text.ToString();
    }

    /// <summary>What the system calls the error of an exception.</summary>
    public static string ErrorOf(Exception e) => Marshal.GetPInvokeErrorMessage(e switch
    {
        BlockFileException file => file.ErrorNumber,
        NoSpaceException => NoSpaceLeft,
        Qcow2FailedException { InnerException: Qcow2CorruptException } => NoMedium,
        Qcow2UnsupportedException or NotSupportedException => NotSupported,
        ShellException or CommandFailedException => InvalidArgument,
        _ => InputOutputError,
    });

    private static string Clock(TimeSpan time)
    {
        double seconds = time.TotalSeconds % 60;
        return string.Create(CultureInfo.InvariantCulture, $"{(int)time.TotalHours}:{time.Minutes:00}:{seconds:00.00}");
    }

    private static string Trimmed(string number, string unit)
    {
        int zeros = number.IndexOf(".000", StringComparison.Ordinal);
        return $"{(zeros < 0 ? number : number[..zeros])} {unit}";
    }
}
