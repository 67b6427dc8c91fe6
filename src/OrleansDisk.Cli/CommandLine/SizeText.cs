using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Cli.CommandLine;

/// <summary>Sizes on the command line, with qemu-img's answers to what is none.</summary>
internal static class SizeText
{
    /// <summary>Reads the size of a disk: 0 to 2^63 - 1.</summary>
    /// <exception cref="CommandFailedException">It is none.</exception>
    public static long ParseImageSize(string text)
    {
        ByteSizeResult result = ByteSize.TryParse(text, out ulong bytes);
        if (result == ByteSizeResult.TooLarge || bytes > long.MaxValue)
            throw new CommandFailedException($"Invalid image size specified. Must be between 0 and {long.MaxValue}.");
        if (result == ByteSizeResult.NotANumber)
        {
            throw new CommandFailedException("Invalid image size specified. You may use k, M, G, T, P or E suffixes for",
                "kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.");
        }
        return (long)bytes;
    }
}
