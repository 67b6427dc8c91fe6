using System.Buffers.Binary;
using System.Text;

namespace OrleansDisk.Qcow2.Format;

/// <summary>The bitmaps header extension (qcow2 specification, "Bitmaps extension").</summary>
/// <param name="Count">Number of bitmaps.</param>
/// <param name="DirectoryBytes">Length of the bitmap directory.</param>
/// <param name="Directory">Where the bitmap directory starts.</param>
public readonly record struct BitmapsExtension(int Count, long DirectoryBytes, HostOffset Directory)
{
    private const int StoredBytes = 24;
    private const int MaxCount = 65535;
    private const long MaxDirectoryBytes = 64L << 20;

    /// <exception cref="Qcow2FormatException">A field is outside what the specification or QEMU allows.</exception>
    public static BitmapsExtension Parse(ReadOnlySpan<byte> data, ClusterGeometry geometry)
    {
        if (data.Length != StoredBytes)
            throw new Qcow2FormatException("bitmaps extension has an invalid length");
        uint count = BinaryPrimitives.ReadUInt32BigEndian(data);
        ulong directoryBytes = BinaryPrimitives.ReadUInt64BigEndian(data[8..]);
        ulong directory = BinaryPrimitives.ReadUInt64BigEndian(data[16..]);
        if (count is 0 or > MaxCount || directoryBytes > MaxDirectoryBytes
            || directory > long.MaxValue || !geometry.IsAligned((long)directory))
        {
            throw new Qcow2FormatException(
                "bitmaps extension has an invalid bitmap count, directory offset or directory size");
        }
        return new BitmapsExtension((int)count, (long)directoryBytes, new HostOffset((long)directory));
    }
}

/// <summary>Flags of a bitmap directory entry.</summary>
[Flags]
public enum BitmapFlags : uint
{
    None = 0,

    /// <summary>The bitmap was not saved: its bits mean nothing.</summary>
    InUse = 1 << 0,

    /// <summary>The bitmap tracks writes.</summary>
    Auto = 1 << 1,

    /// <summary>Who does not know the extra data may use the bitmap all the same.</summary>
    ExtraDataCompatible = 1 << 2,
}

/// <summary>An entry of the bitmap directory (qcow2 specification, "Bitmap directory").</summary>
public sealed record BitmapEntry
{
    public const int FixedBytes = 24;
    private const int MaxNameBytes = 1023;

    public required ulong TableOffset { get; init; }

    public required uint TableEntryCount { get; init; }

    public required BitmapFlags Flags { get; init; }

    /// <summary>Base-2 logarithm of the bytes that one bit stands for.</summary>
    public required int GranularityBits { get; init; }

    /// <summary>The name; empty when the entry is longer than what was read of it.</summary>
    public required string Name { get; init; }

    /// <summary>Bytes of the entry with the padding to the next one.</summary>
    public required long StoredBytes { get; init; }

    /// <summary>Longest entry whose name is read.</summary>
    public const int MaxReadBytes = FixedBytes + 1024 + MaxNameBytes;

    /// <summary>Reads the entry that starts at <paramref name="directory"/>, of at least <see cref="FixedBytes"/>.</summary>
    public static BitmapEntry Parse(ReadOnlySpan<byte> directory)
    {
        int nameBytes = BinaryPrimitives.ReadUInt16BigEndian(directory[18..]);
        long nameAt = FixedBytes + (long)BinaryPrimitives.ReadUInt32BigEndian(directory[20..]);
        bool hasName = nameBytes <= MaxNameBytes && nameAt + nameBytes <= directory.Length;
        return new BitmapEntry
        {
            TableOffset = BinaryPrimitives.ReadUInt64BigEndian(directory),
            TableEntryCount = BinaryPrimitives.ReadUInt32BigEndian(directory[8..]),
            Flags = (BitmapFlags)BinaryPrimitives.ReadUInt32BigEndian(directory[12..]),
            GranularityBits = directory[17],
            Name = hasName ? Encoding.UTF8.GetString(directory.Slice((int)nameAt, nameBytes)) : "",
            StoredBytes = (nameAt + nameBytes + 7) & ~7L,
        };
    }
}
