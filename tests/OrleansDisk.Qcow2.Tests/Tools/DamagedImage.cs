using System.Buffers.Binary;

namespace OrleansDisk.Testing;

/// <summary>Changes single fields of an image file, as a bad disk or program would.</summary>
public static class DamagedImage
{
    public static void PokeUInt64(string file, long offset, ulong value)
    {
        byte[] bytes = new byte[8];
        BinaryPrimitives.WriteUInt64BigEndian(bytes, value);
        Poke(file, offset, bytes);
    }

    public static void PokeUInt32(string file, long offset, uint value)
    {
        byte[] bytes = new byte[4];
        BinaryPrimitives.WriteUInt32BigEndian(bytes, value);
        Poke(file, offset, bytes);
    }

    public static void PokeUInt16(string file, long offset, ushort value)
    {
        byte[] bytes = new byte[2];
        BinaryPrimitives.WriteUInt16BigEndian(bytes, value);
        Poke(file, offset, bytes);
    }

    public static ulong PeekUInt64(string file, long offset)
    {
        byte[] bytes = new byte[8];
        using FileStream stream = File.OpenRead(file);
        stream.Position = offset;
        stream.ReadExactly(bytes);
        return BinaryPrimitives.ReadUInt64BigEndian(bytes);
    }

    private static void Poke(string file, long offset, byte[] bytes)
    {
        using FileStream stream = File.OpenWrite(file);
        stream.Position = offset;
        stream.Write(bytes);
    }
}
