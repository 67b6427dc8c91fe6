using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Qcow2.Data;

/// <summary>
/// The file that holds the guest data of an image whose own file has only metadata (qcow2 specification, "external data
/// file"): each cluster lies at its guest offset.
/// </summary>
internal static class ExternalDataFile
{
    /// <summary>Opens the data file of an image, or finds that it has none.</summary>
    /// <param name="image">The image's file, which gives the access and the directory where relative names start.</param>
    /// <param name="header">Its header.</param>
    /// <param name="options">What the caller says of the data file, and how files are opened.</param>
    /// <exception cref="Qcow2Exception">The file can't be had; the message names it.</exception>
    public static IBlockFile? Open(IBlockFile image, Header header, Qcow2OpenOptions options)
    {
        if (!header.Geometry.HasExternalData)
        {
            if (options.DataFile is not null)
                throw new Qcow2Exception("'data-file' can only be set for images with an external data file");
            return header.Autoclear.HasFlag(AutoclearFeatures.RawExternalData)
                ? throw new Qcow2FormatException("data-file-raw requires a data file") : null;
        }
        if (options.DataFile is not null)
            return options.DataFile;
        if (header.DataFile is null)
            throw new Qcow2Exception("'data-file' is required for this image");
        string path = ResolvePath(image.Name, header.DataFile);
        ImageAccess access = !image.IsReadOnly ? ImageAccess.Write
            : options.Access == ImageAccess.ReadShared ? ImageAccess.ReadShared : ImageAccess.Read;
        try
        {
            return options.OpenFile(path, access);
        }
        catch (IOException e) when (e is not ImageLockedException)
        {
            throw new Qcow2Exception($"Could not open the data file of '{image.Name}': {e.Message}", e);
        }
    }

    /// <summary>
    /// The path of a data file: relative names start from the image's directory. Names with a protocol are refused, since
    /// an image must not make us open what its owner did not mean.
    /// </summary>
    /// <exception cref="Qcow2UnsupportedException">The name is not that of a file.</exception>
    public static string ResolvePath(string imagePath, string name)
    {
        if (name.StartsWith("file:", StringComparison.Ordinal))
            name = name["file:".Length..];
        if (BackingChain.HasProtocol(name))
        {
            throw new Qcow2UnsupportedException($"the data file name '{name}' (a protocol, not a file)",
                "name the file with the option data-file.filename, or store it with qemu-img amend -o data_file=FILE");
        }
        return Path.Combine(Path.GetDirectoryName(imagePath) ?? "", name);
    }
}
