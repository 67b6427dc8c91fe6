using System.Buffers.Binary;
using System.Text;

namespace OrleansDisk.Qcow2.Format;

/// <summary>The bitmaps header extension (qcow2 specification, "Bitmaps extension").</summary>
/// <param name="Count">Number of bitmaps.</param>
/// <param name="DirectoryBytes">Length of the bitmap directory.</param>
/// <param name="Directory">Where the bitmap directory starts.</param>
public readonly record struct BitmapsExtension(int Count, long DirectoryBytes, HostOffset Directory)
{
    /// <summary>Most bitmaps of an image (QEMU's limit).</summary>
    public const int MaxCount = 65535;

    /// <summary>Longest directory, in bytes (QEMU's limit).</summary>
    public const long MaxDirectoryBytes = 64L << 20;

    private const int StoredBytes = 24;

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

    /// <summary>The extension as a header holds it.</summary>
    internal HeaderExtension ToHeaderExtension()
    {
        byte[] data = new byte[StoredBytes];
        BinaryPrimitives.WriteUInt32BigEndian(data, (uint)Count);
        BinaryPrimitives.WriteUInt64BigEndian(data.AsSpan(8), (ulong)DirectoryBytes);
        BinaryPrimitives.WriteUInt64BigEndian(data.AsSpan(16), (ulong)Directory.Bytes);
        return new HeaderExtension(HeaderExtensionType.Bitmaps, data);
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

    /// <summary>Longest name, in bytes of UTF-8 (the specification's limit).</summary>
    public const int MaxNameBytes = 1023;

    public const int MinGranularityBits = 9;
    public const int MaxGranularityBits = 31;

    /// <summary>Most bytes of bits that a bitmap has (QEMU's limit): they may all be in memory.</summary>
    public const long MaxBitBytes = 512L << 20;

    private const byte DirtyTracking = 1;

    public required ulong TableOffset { get; init; }

    public required uint TableEntryCount { get; init; }

    public required BitmapFlags Flags { get; init; }

    /// <summary>Base-2 logarithm of the bytes that one bit stands for.</summary>
    public required int GranularityBits { get; init; }

    /// <summary>What the bitmap is for; only dirty tracking, 1, has a meaning.</summary>
    public byte Type { get; init; } = DirtyTracking;

    /// <summary>Extra data: nothing is known of it here; it is kept.</summary>
    public byte[] ExtraData { get; init; } = [];

    /// <summary>The name as it is stored; empty when the entry is longer than what was read of it.</summary>
    public required byte[] NameBytes { get; init; }

    public string Name => Encoding.UTF8.GetString(NameBytes);

    /// <summary>Bytes of the entry with the padding to the next one, as it was read.</summary>
    public long StoredBytes { get; init; }

    /// <summary>Longest entry whose name is read.</summary>
    public const int MaxReadBytes = FixedBytes + 1024 + MaxNameBytes;

    /// <summary>Reads the entry that starts at <paramref name="directory"/>, of at least <see cref="FixedBytes"/>.</summary>
    public static BitmapEntry Parse(ReadOnlySpan<byte> directory)
    {
        int nameBytes = BinaryPrimitives.ReadUInt16BigEndian(directory[18..]);
        long nameAt = FixedBytes + (long)BinaryPrimitives.ReadUInt32BigEndian(directory[20..]);
        bool hasName = nameBytes <= MaxNameBytes && nameAt + nameBytes <= directory.Length;
        bool hasExtraData = nameAt <= directory.Length;
        return new BitmapEntry
        {
            Type = directory[16],
            ExtraData = hasExtraData ? directory[FixedBytes..(int)nameAt].ToArray() : [],
            TableOffset = BinaryPrimitives.ReadUInt64BigEndian(directory),
            TableEntryCount = BinaryPrimitives.ReadUInt32BigEndian(directory[8..]),
            Flags = (BitmapFlags)BinaryPrimitives.ReadUInt32BigEndian(directory[12..]),
            GranularityBits = directory[17],
            NameBytes = hasName ? directory.Slice((int)nameAt, nameBytes).ToArray() : [],
            StoredBytes = (nameAt + nameBytes + 7) & ~7L,
        };
    }

    /// <summary>Bytes of an entry with the padding to the next one.</summary>
    public static int BytesOf(int nameBytes, int extraDataBytes) => (FixedBytes + nameBytes + extraDataBytes + 7) & ~7;

    /// <summary>Bytes of the bits of a bitmap.</summary>
    public static long BitBytes(long diskBytes, int granularityBits)
    {
        long bits = (diskBytes >> granularityBits) + ((diskBytes & ((1L << granularityBits) - 1)) != 0 ? 1 : 0);
        return (bits + 7) / 8;
    }

    /// <summary>
    /// Whether nothing about the bitmap is unknown here, so that it can be used. Extra data is no hindrance if the bitmap
    /// says so.
    /// </summary>
    internal bool IsUnderstood => Type == DirtyTracking
        && (Flags & ~(BitmapFlags.InUse | BitmapFlags.Auto | BitmapFlags.ExtraDataCompatible)) == 0
        && (ExtraData.Length == 0 || Flags.HasFlag(BitmapFlags.ExtraDataCompatible));

    /// <summary>Whether the fields are within the limits of the specification and of QEMU.</summary>
    /// <param name="geometry">The image's.</param>
    /// <param name="diskBytes">The disk's size; a bitmap that is in use need not be of it.</param>
    internal bool IsWithinLimits(ClusterGeometry geometry, long diskBytes)
    {
        if (TableOffset is 0 or > long.MaxValue || !geometry.IsAligned((long)TableOffset)
            || TableEntryCount == 0 || (long)TableEntryCount << geometry.ClusterBits > MaxBitBytes
            || GranularityBits is < MinGranularityBits or > MaxGranularityBits)
        {
            return false;
        }
        return Flags.HasFlag(BitmapFlags.InUse)
            || TableEntryCount == geometry.ClusterCount(BitBytes(diskBytes, GranularityBits));
    }

    /// <summary>Writes the entry at the start of <paramref name="directory"/>, which is zeros; returns its bytes.</summary>
    internal int WriteTo(Span<byte> directory)
    {
        BinaryPrimitives.WriteUInt64BigEndian(directory, TableOffset);
        BinaryPrimitives.WriteUInt32BigEndian(directory[8..], TableEntryCount);
        BinaryPrimitives.WriteUInt32BigEndian(directory[12..], (uint)Flags);
        directory[16] = Type;
        directory[17] = (byte)GranularityBits;
        BinaryPrimitives.WriteUInt16BigEndian(directory[18..], (ushort)NameBytes.Length);
        BinaryPrimitives.WriteUInt32BigEndian(directory[20..], (uint)ExtraData.Length);
        ExtraData.CopyTo(directory[FixedBytes..]);
        NameBytes.CopyTo(directory[(FixedBytes + ExtraData.Length)..]);
        return BytesOf(NameBytes.Length, ExtraData.Length);
    }
}
