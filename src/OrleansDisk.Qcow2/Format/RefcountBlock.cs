using System.Buffers.Binary;
using System.Numerics;
using System.Runtime.InteropServices;

namespace OrleansDisk.Qcow2.Format;

/// <summary>
/// Refcounts of 1 to 64 bits in a block as it lies on disk: big-endian, and for widths below a byte the first
/// refcount in the least significant bits (qcow2 specification, "Refcount block entry").
/// </summary>
public static class RefcountBlock
{
    /// <summary>The refcount at <paramref name="index"/> for a width of 2^<paramref name="order"/> bits.</summary>
    public static ulong Get(ReadOnlySpan<byte> block, int order, int index) => order switch
    {
        0 => (ulong)(block[index >> 3] >> (index & 7)) & 1,
        1 => (ulong)(block[index >> 2] >> ((index & 3) << 1)) & 3,
        2 => (ulong)(block[index >> 1] >> ((index & 1) << 2)) & 15,
        3 => block[index],
        4 => BinaryPrimitives.ReadUInt16BigEndian(block[(index << 1)..]),
        5 => BinaryPrimitives.ReadUInt32BigEndian(block[(index << 2)..]),
        _ => BinaryPrimitives.ReadUInt64BigEndian(block[(index << 3)..]),
    };

    /// <summary>Sets the refcount at <paramref name="index"/>; <paramref name="value"/> must fit the width.</summary>
    public static void Set(Span<byte> block, int order, int index, ulong value)
    {
        Invariant.Assert(order == 6 || value < 1UL << (1 << order), "a refcount fits its width");
        switch (order)
        {
            case 0:
            case 1:
            case 2:
                int perByteBits = 3 - order;
                int shift = (index & ((1 << perByteBits) - 1)) << order;
                int mask = ((1 << (1 << order)) - 1) << shift;
                ref byte cell = ref block[index >> perByteBits];
                cell = (byte)((cell & ~mask) | ((int)value << shift));
                break;
            case 3:
                block[index] = (byte)value;
                break;
            case 4:
                BinaryPrimitives.WriteUInt16BigEndian(block[(index << 1)..], (ushort)value);
                break;
            case 5:
                BinaryPrimitives.WriteUInt32BigEndian(block[(index << 2)..], (uint)value);
                break;
            default:
                BinaryPrimitives.WriteUInt64BigEndian(block[(index << 3)..], value);
                break;
        }
    }

    /// <summary>First index from <paramref name="start"/> whose refcount is 0, or -1.</summary>
    public static int IndexOfFree(ReadOnlySpan<byte> block, int order, int start)
    {
        int found = order switch
        {
            3 => block[start..].IndexOf((byte)0),
            4 => MemoryMarshal.Cast<byte, ushort>(block)[start..].IndexOf((ushort)0),
            5 => MemoryMarshal.Cast<byte, uint>(block)[start..].IndexOf(0u),
            6 => MemoryMarshal.Cast<byte, ulong>(block)[start..].IndexOf(0ul),
            _ => IndexOfFreeBits(block, order, start),
        };
        return found < 0 ? -1 : start + found;
    }

    /// <summary>
    /// For widths below a byte: a word at a time, in which a refcount that is 0 leaves its lowest bit set when all its bits are
    /// folded into it and inverted.
    /// </summary>
    private static int IndexOfFreeBits(ReadOnlySpan<byte> block, int order, int start)
    {
        ReadOnlySpan<ulong> words = MemoryMarshal.Cast<byte, ulong>(block);
        int perWordBits = 6 - order;
        ulong lowest = order switch { 0 => ulong.MaxValue, 1 => 0x5555_5555_5555_5555, _ => 0x1111_1111_1111_1111 };
        ulong from = ulong.MaxValue << ((start & ((1 << perWordBits) - 1)) << order);
        for (int index = start >> perWordBits; index < words.Length; index++)
        {
            ulong word = BitConverter.IsLittleEndian ? words[index] : BinaryPrimitives.ReverseEndianness(words[index]);
            for (int shift = order; shift > 0; shift--)
                word |= word >> (1 << (shift - 1));
            ulong free = ~word & lowest & from;
            if (free != 0)
                return (index << perWordBits) + (BitOperations.TrailingZeroCount(free) >> order) - start;
            from = ulong.MaxValue;
        }
        return -1;
    }
}
