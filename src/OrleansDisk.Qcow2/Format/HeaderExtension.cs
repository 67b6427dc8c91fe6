using System.Buffers.Binary;
using System.Text;

namespace OrleansDisk.Qcow2.Format;

/// <summary>Types of header extensions that have a meaning here; every other one is kept as it is.</summary>
public enum HeaderExtensionType : uint
{
    End = 0,
    BackingFormat = 0xe279_2aca,
    FeatureNames = 0x6803_f857,
    Bitmaps = 0x2385_2875,
    Encryption = 0x0537_be77,
    ExternalDataFileName = 0x4441_5441,
}

/// <summary>A header extension: its type and its bytes, without the padding.</summary>
public sealed record HeaderExtension(HeaderExtensionType Type, byte[] Data)
{
    /// <summary>Type and length, before the data.</summary>
    public const int PrefixBytes = 8;

    /// <summary>Bytes on disk: prefix, data, padding to a multiple of 8.</summary>
    public int StoredBytes => PrefixBytes + ((Data.Length + 7) & ~7);

    public static HeaderExtension BackingFormat(string format) =>
        new(HeaderExtensionType.BackingFormat, Encoding.UTF8.GetBytes(format));

    public static HeaderExtension DataFile(string name) =>
        new(HeaderExtensionType.ExternalDataFileName, Encoding.UTF8.GetBytes(name));

    /// <summary>Place among the extensions of a header, as QEMU writes them; those of one rank keep their order.</summary>
    internal int Rank => Type switch
    {
        HeaderExtensionType.BackingFormat => 0,
        HeaderExtensionType.ExternalDataFileName => 1,
        HeaderExtensionType.Encryption => 2,
        HeaderExtensionType.FeatureNames => 3,
        HeaderExtensionType.Bitmaps => 4,
        _ => 5,
    };

    /// <summary>The table of the names that are known here, and of those that an image had for other bits.</summary>
    public static HeaderExtension FeatureNames(IEnumerable<FeatureName> others)
    {
        FeatureName[] names = [.. FeatureName.Known.Concat(others).DistinctBy(name => (name.Type, name.Bit))];
        byte[] data = new byte[names.Length * FeatureName.RowBytes];
        for (int row = 0; row < names.Length; row++)
        {
            FeatureName name = names[row];
            Span<byte> bytes = data.AsSpan(row * FeatureName.RowBytes, FeatureName.RowBytes);
            bytes[0] = name.Type;
            bytes[1] = name.Bit;
            Encoding.UTF8.GetBytes(name.Name, bytes[2..]);
        }
        return new HeaderExtension(HeaderExtensionType.FeatureNames, data);
    }

    /// <summary>
    /// Reads the extensions in <paramref name="area"/>, which starts at header_length and ends at the backing file
    /// name or at the end of the first cluster.
    /// </summary>
    /// <exception cref="Qcow2FormatException">An extension runs past the area.</exception>
    public static IReadOnlyList<HeaderExtension> ParseAll(ReadOnlySpan<byte> area)
    {
        var found = new List<HeaderExtension>();
        while (area.Length > 0)
        {
            if (area.Length < PrefixBytes)
                throw new Qcow2FormatException("Header extension too large");
            var type = (HeaderExtensionType)BinaryPrimitives.ReadUInt32BigEndian(area);
            uint length = BinaryPrimitives.ReadUInt32BigEndian(area[4..]);
            if (type == HeaderExtensionType.End)
                break;
            if (length > area.Length - PrefixBytes)
                throw new Qcow2FormatException("Header extension too large");
            var extension = new HeaderExtension(type, area.Slice(PrefixBytes, (int)length).ToArray());
            found.Add(extension);
            area = extension.StoredBytes >= area.Length ? default : area[extension.StoredBytes..];
        }
        return found;
    }

    /// <summary>Rows of a feature name table.</summary>
    public IReadOnlyList<FeatureName> ParseFeatureNames()
    {
        var names = new List<FeatureName>();
        // The last row may be cut off: what is missing of it is zeros.
        for (int at = 0; at + 2 <= Data.Length; at += FeatureName.RowBytes)
        {
            ReadOnlySpan<byte> text = Data.AsSpan(at + 2, Math.Min(FeatureName.RowBytes, Data.Length - at) - 2);
            int end = text.IndexOf((byte)0);
            names.Add(new FeatureName(Data[at], Data[at + 1], Encoding.UTF8.GetString(end < 0 ? text : text[..end])));
        }
        return names;
    }

    /// <summary>Writes prefix, data and padding; returns the bytes written.</summary>
    public int WriteTo(Span<byte> destination)
    {
        Span<byte> stored = destination[..StoredBytes];
        stored.Clear();
        BinaryPrimitives.WriteUInt32BigEndian(stored, (uint)Type);
        BinaryPrimitives.WriteUInt32BigEndian(stored[4..], (uint)Data.Length);
        Data.CopyTo(stored[PrefixBytes..]);
        return stored.Length;
    }
}
