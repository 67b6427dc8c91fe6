using System.Runtime.InteropServices;

namespace OrleansDisk.Simulation.Model;

/// <summary>
/// Names what a sector holds by one number: a sector that is the same 8 bytes all through by these bytes, any other by
/// a hash. 0 is a sector of zeros.
/// </summary>
internal static class SectorContent
{
    public const int Bytes = 512;

    /// <summary>What lies in free space: whoever shows it has read what it never wrote.</summary>
    public const long Poison = unchecked((long)0xDEAD_F4EE_DEAD_F4EE);

    private const int SectorBits = 24;

    /// <summary>The content that a write gives to a sector: no two writes and no two sectors share one.</summary>
    public static long Of(long write, long sector) => (write << SectorBits) | (sector + 1);

    public static long Parse(ReadOnlySpan<byte> sector)
    {
        ReadOnlySpan<long> words = MemoryMarshal.Cast<byte, long>(sector);
        if (words.IndexOfAnyExcept(words[0]) < 0)
            return words[0];
        ulong hash = 14695981039346656037;
        foreach (long word in words)
        {
            hash = (hash ^ (ulong)word) * 0x9E3779B97F4A7C15;
            hash ^= hash >> 31;
        }
        return (long)(hash | (1UL << 63));
    }

    public static void Fill(Span<byte> sector, long content) => MemoryMarshal.Cast<byte, long>(sector).Fill(content);

    public static string Describe(long content)
    {
        if (content == 0)
            return "zeros";
        if (content == Poison)
            return "poison of free space";
        return content < 0 ? $"a mixture or foreign bytes ({content:x16})"
            : $"write {content >> SectorBits} of sector {(content & ((1 << SectorBits) - 1)) - 1}";
    }
}
