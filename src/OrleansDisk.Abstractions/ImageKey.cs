using System.Text;

namespace OrleansDisk.Abstractions;

/// <summary>
/// The name of an image: a pool and a name in it, written <c>POOL/IMAGE</c>. Every image has exactly one key: the
/// extension <c>.qcow2</c> of its file is not part of it.
/// </summary>
public readonly record struct ImageKey
{
    /// <summary>What image files end in.</summary>
    public const string FileExtension = ".qcow2";

    // A file name has at most 255 bytes on every file system in use.
    private const int MaxImageNameBytes = 255 - 6;
    private const int MaxPoolNameLength = 64;

    private ImageKey(string pool, string image) => (Pool, Image) = (pool, image);

    public string Pool { get; }

    public string Image { get; }

    /// <summary>The name of the image's file in the directory of its pool.</summary>
    public string FileName => Image + FileExtension;

    /// <summary>Reads a key; an extension <c>.qcow2</c> is taken off.</summary>
    /// <exception cref="ImageException"><see cref="SectorError.InvalidArgument"/>: it is no key; the message says why.</exception>
    public static ImageKey Parse(string text)
    {
        int slash = text.IndexOf('/', StringComparison.Ordinal);
        if (slash < 0)
            throw Invalid(text, "it has no '/'; a key is POOL/IMAGE");
        string pool = text[..slash];
        string image = text[(slash + 1)..];
        if (WhyNotPoolName(pool) is { } wrongPool)
            throw Invalid(text, $"the pool's name {wrongPool}");
        if (image.EndsWith(FileExtension, StringComparison.Ordinal))
            image = image[..^FileExtension.Length];
        if (WhyNotImageName(image) is { } wrongImage)
            throw Invalid(text, $"the image's name {wrongImage}");
        return new ImageKey(pool, image);
    }

    /// <summary>The key of a file in a pool; null when no key leads to it.</summary>
    public static ImageKey? OfFile(string pool, string fileName)
    {
        if (!fileName.EndsWith(FileExtension, StringComparison.Ordinal))
            return null;
        string image = fileName[..^FileExtension.Length];
        return WhyNotImageName(image) is null ? new ImageKey(pool, image) : null;
    }

    /// <summary>What is wrong with the name of a pool, as the end of a sentence; null when it is right.</summary>
    public static string? WhyNotPoolName(string name)
    {
        if (name.Length is 0 or > MaxPoolNameLength)
            return $"has {name.Length} characters; it has 1 to {MaxPoolNameLength}";
        if (!char.IsAsciiLetterOrDigit(name[0]))
            return "does not begin with a letter or a digit";
        foreach (char c in name)
        {
            if (!char.IsAsciiLetterOrDigit(c) && c is not ('-' or '_' or '.'))
                return $"contains {Describe(c)}; it has letters, digits, '-', '_' and '.'";
        }
        return null;
    }

    public override string ToString() => $"{Pool}/{Image}";

    private static string? WhyNotImageName(string name)
    {
        if (name.Length == 0)
            return "is empty";
        if (name[0] == '.')
            return "begins with '.'";
        if (name.EndsWith(FileExtension, StringComparison.Ordinal))
            return $"ends in {FileExtension} twice";
        if (char.IsWhiteSpace(name[0]) || char.IsWhiteSpace(name[^1]))
            return "begins or ends with white space";
        foreach (char c in name)
        {
            if (c is '/' or '\\' || char.IsControl(c))
                return $"contains {Describe(c)}";
        }
        return WhyNotFileName(name);
    }

    private static string? WhyNotFileName(string name)
    {
        try
        {
            int bytes = new UTF8Encoding(false, throwOnInvalidBytes: true).GetByteCount(name);
            return bytes > MaxImageNameBytes ? $"has {bytes} bytes; it has at most {MaxImageNameBytes}" : null;
        }
        catch (EncoderFallbackException)
        {
            return "is not valid Unicode";
        }
    }

    private static string Describe(char c) => char.IsControl(c) ? $"the control character U+{(int)c:X4}" : $"'{c}'";

    private static ImageException Invalid(string text, string reason)
    {
        string shown = text.Length <= 300 ? text : text[..300] + "...";
        return new ImageException(SectorError.InvalidArgument, $"'{shown}' is no image: {reason}");
    }
}
