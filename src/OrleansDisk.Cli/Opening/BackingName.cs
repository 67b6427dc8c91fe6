using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Cli.Opening;

/// <summary>
/// The name of what lies below an image, as the image has it. It may be options, too, if they lead to nothing but files:
/// a plain name could do that as well.
/// </summary>
internal static class BackingName
{
    /// <summary>Whether the name that an image has is json:{...}.</summary>
    public static bool IsOptions(Header header) => header.BackingFile is { } stored && BlockOptionText.IsJson(stored);

    /// <summary>The name as seen from where the image was opened, or null when it has none.</summary>
    /// <param name="overlay">The image's own name.</param>
    /// <param name="header">The image's header.</param>
    /// <param name="options">What the user gave for the backing file; gets the format that the image has for it.</param>
    /// <exception cref="CommandFailedException">The name leads to what is no file.</exception>
    public static string? Of(string overlay, Header header, BlockOptions options)
    {
        if (header.BackingFile is not { } stored)
            return null;
        if (IsOptions(header))
        {
            RefuseDrivers(BlockOptionText.ParseJson(stored));
            return stored;
        }
        if (header.BackingFormat is { } format && !options.Has("driver"))
            options["driver"] = format;
        string path = ImageInfo.ResolveBackingFile(overlay, stored);
        return FileOpener.ProtocolOf(path) == "file" ? path
            : throw new CommandFailedException($"The backing file '{stored}' that the image names is no file; give backing.file.filename");
    }

    private static void RefuseDrivers(BlockOptions options)
    {
        foreach (string name in options.Names.Where(name => name == "driver" || name.EndsWith(".driver", StringComparison.Ordinal)))
        {
            if (options[name] is not ("qcow2" or "raw" or "file" or "blkdebug" or "null-co"))
                throw new CommandFailedException($"The image names a backing file of driver '{options[name]}'; give it with backing.driver");
        }
    }
}
