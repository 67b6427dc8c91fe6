using System.Buffers.Binary;

namespace OrleansDisk.Qcow2.Format;

/// <summary>Where an image has its LUKS header with the key material ("Full disk encryption header pointer").</summary>
/// <param name="Start">First byte, at a cluster's start.</param>
/// <param name="Bytes">Length.</param>
public readonly record struct EncryptionHeader(HostOffset Start, long Bytes)
{
    private const int StoredBytes = 16;

    /// <summary>Longer ones than any cipher needs are damage.</summary>
    private const ulong MaxBytes = 32 << 20;

    /// <summary>What an image's header says.</summary>
    /// <exception cref="Qcow2FormatException">It says nothing, or what can't be.</exception>
    public static EncryptionHeader Of(Header header)
    {
        byte[] data = header.Find(HeaderExtensionType.Encryption)?.Data
            ?? throw new Qcow2FormatException($"Missing CRYPTO header for crypt method {(uint)header.Encryption}");
        if (data.Length != StoredBytes)
            throw new Qcow2FormatException($"CRYPTO header extension size {data.Length}, but expected size {StoredBytes}");
        ulong offset = BinaryPrimitives.ReadUInt64BigEndian(data);
        ulong bytes = BinaryPrimitives.ReadUInt64BigEndian(data.AsSpan(sizeof(ulong)));
        if (offset % (ulong)header.Geometry.ClusterBytes != 0)
        {
            throw new Qcow2FormatException(
                $"Encryption header offset '{offset}' is not a multiple of cluster size '{header.Geometry.ClusterBytes}'");
        }
        if (offset >= ClusterGeometry.HostOffsetLimit || bytes > MaxBytes)
            throw new Qcow2FormatException($"Encryption header of {bytes} bytes at offset {offset} is not plausible");
        return new EncryptionHeader(new HostOffset((long)offset), (long)bytes);
    }

    /// <summary>The header extension that says this.</summary>
    public HeaderExtension ToExtension()
    {
        byte[] data = new byte[StoredBytes];
        BinaryPrimitives.WriteUInt64BigEndian(data, (ulong)Start.Bytes);
        BinaryPrimitives.WriteUInt64BigEndian(data.AsSpan(sizeof(ulong)), (ulong)Bytes);
        return new HeaderExtension(HeaderExtensionType.Encryption, data);
    }
}
