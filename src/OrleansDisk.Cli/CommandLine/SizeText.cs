using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Cli.CommandLine;

/// <summary>Sizes on the command line, with qemu-img's answers to what is none.</summary>
internal static class SizeText
{
    /// <summary>Reads the size of a disk: 0 to 2^63 - 1.</summary>
    /// <exception cref="CommandFailedException">It is none.</exception>
    public static long ParseImageSize(string text) => Parse("image size", text);

    /// <summary>Reads a size.</summary>
    /// <param name="what">What the message calls it.</param>
    /// <param name="text">Bytes, or a number with a suffix.</param>
    /// <param name="min">The smallest one that is allowed.</param>
    /// <param name="max">The largest one.</param>
    /// <exception cref="CommandFailedException">It is none.</exception>
    public static long Parse(string what, string text, long min = 0, long max = long.MaxValue)
    {
        ByteSizeResult result = ByteSize.TryParse(text, out ulong bytes);
        if (result == ByteSizeResult.TooLarge || bytes > (ulong)max || (result == ByteSizeResult.Ok && bytes < (ulong)min))
            throw new CommandFailedException($"Invalid {what} specified. Must be between {min} and {max}.");
        if (result == ByteSizeResult.NotANumber)
        {
            throw new CommandFailedException($"Invalid {what} specified. You may use k, M, G, T, P or E suffixes for",
                "kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.");
        }
        return (long)bytes;
    }
}
