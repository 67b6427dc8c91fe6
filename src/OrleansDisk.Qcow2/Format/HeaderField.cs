using System.Buffers.Binary;

namespace OrleansDisk.Qcow2.Format;

/// <summary>Byte offsets of the header's fields, for reading them and for changing one in place.</summary>
internal static class HeaderField
{
    public const int MagicField = 0;
    public const int Version = 4;
    public const int BackingFileOffset = 8;
    public const int BackingFileSize = 16;
    public const int ClusterBits = 20;
    public const int Size = 24;
    public const int CryptMethod = 32;
    public const int L1Size = 36;
    public const int L1TableOffset = 40;
    public const int RefcountTableOffset = 48;
    public const int RefcountTableClusters = 56;
    public const int SnapshotCount = 60;
    public const int SnapshotsOffset = 64;
    public const int Incompatible = 72;
    public const int Compatible = 80;
    public const int Autoclear = 88;
    public const int RefcountOrder = 96;
    public const int HeaderLength = 100;
    public const int CompressionType = 104;

    public static uint ReadUInt32(ReadOnlySpan<byte> header, int field) =>
        BinaryPrimitives.ReadUInt32BigEndian(header[field..]);

    public static ulong ReadUInt64(ReadOnlySpan<byte> header, int field) =>
        BinaryPrimitives.ReadUInt64BigEndian(header[field..]);

    public static void WriteUInt32(Span<byte> header, int field, uint value) =>
        BinaryPrimitives.WriteUInt32BigEndian(header[field..], value);

    public static void WriteUInt64(Span<byte> header, int field, ulong value) =>
        BinaryPrimitives.WriteUInt64BigEndian(header[field..], value);
}
