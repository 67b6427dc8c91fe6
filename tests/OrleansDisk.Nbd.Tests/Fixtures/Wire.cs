using System.Buffers.Binary;
using System.Text;

namespace OrleansDisk.Nbd.Tests.Fixtures;

/// <summary>Big-endian building blocks of messages.</summary>
internal static class Wire
{
    public static byte[] U16(int value)
    {
        byte[] bytes = new byte[2];
        BinaryPrimitives.WriteUInt16BigEndian(bytes, (ushort)value);
        return bytes;
    }

    public static byte[] U32(uint value)
    {
        byte[] bytes = new byte[4];
        BinaryPrimitives.WriteUInt32BigEndian(bytes, value);
        return bytes;
    }

    public static byte[] U64(ulong value)
    {
        byte[] bytes = new byte[8];
        BinaryPrimitives.WriteUInt64BigEndian(bytes, value);
        return bytes;
    }

    /// <summary>A string after its 32-bit length.</summary>
    public static byte[] Text(string text) => [.. U32((uint)Encoding.UTF8.GetByteCount(text)), .. Encoding.UTF8.GetBytes(text)];

    /// <summary>Data of LIST_META_CONTEXT and SET_META_CONTEXT.</summary>
    public static byte[] MetaContext(string export, params string[] queries) =>
        [.. Text(export), .. U32((uint)queries.Length), .. queries.SelectMany(Text)];

    /// <summary>Data of INFO and GO.</summary>
    public static byte[] Info(string export, params int[] requests) =>
        [.. Text(export), .. U16(requests.Length), .. requests.SelectMany(U16)];
}
