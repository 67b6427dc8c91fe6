using System.Buffers;
using System.Buffers.Binary;
using System.Numerics;
using System.Runtime.InteropServices;
using System.Security.Cryptography;

namespace OrleansDisk.Qcow2.Crypto;

/// <summary>
/// AES in XTS mode (IEEE 1619) with data units of one sector, whose initialization vector is the tweak: what LUKS uses.
/// </summary>
public sealed class AesXtsCipher : SectorCipher
{
    private const int BlockBytes = 16;

    // Sectors that are worked on at once: tweaks and data stay in the processor's cache.
    private const int PieceSectors = 64;

    private readonly Aes _data = Aes.Create();
    private readonly Aes _tweak = Aes.Create();
    private readonly SectorVectors _vectors;

    /// <param name="key">Both halves, the data key first: 32 bytes for AES-128, 48 for AES-192, 64 for AES-256. It is copied.</param>
    /// <param name="vectors">The sectors' tweaks before they are encrypted; they belong to the cipher.</param>
    internal AesXtsCipher(ReadOnlySpan<byte> key, SectorVectors vectors)
    {
        SetKey(_data, key[..(key.Length / 2)]);
        SetKey(_tweak, key[(key.Length / 2)..]);
        _vectors = vectors;
    }

    protected override void Transform(Span<byte> sectors, ulong first, bool encrypts)
    {
        byte[] rented = ArrayPool<byte>.Shared.Rent(Math.Min(sectors.Length, PieceSectors * SectorBytes));
        while (sectors.Length > 0)
        {
            int count = Math.Min(sectors.Length / SectorBytes, PieceSectors);
            Span<byte> piece = sectors[..(count * SectorBytes)];
            Span<byte> tweaks = rented.AsSpan(0, piece.Length);
            FillTweaks(tweaks, first, count);
            Xor(piece, tweaks);
            _ = encrypts ? _data.EncryptEcb(piece, piece, PaddingMode.None) : _data.DecryptEcb(piece, piece, PaddingMode.None);
            Xor(piece, tweaks);
            sectors = sectors[piece.Length..];
            first += (ulong)count;
        }
        ArrayPool<byte>.Shared.Return(rented);
    }

    protected override void Dispose(bool disposing)
    {
        _data.Dispose();
        _tweak.Dispose();
        _vectors.Dispose();
    }

    /// <summary>A tweak for each block: the sector's vector encrypted, then doubled from block to block.</summary>
    private void FillTweaks(Span<byte> tweaks, ulong first, int sectorCount)
    {
        Span<byte> starts = stackalloc byte[PieceSectors * BlockBytes];
        starts = starts[..(sectorCount * BlockBytes)];
        _vectors.Fill(starts, first);
        _tweak.EncryptEcb(starts, starts, PaddingMode.None);
        for (int sector = 0; sector < sectorCount; sector++)
        {
            ulong low = BinaryPrimitives.ReadUInt64LittleEndian(starts[(sector * BlockBytes)..]);
            ulong high = BinaryPrimitives.ReadUInt64LittleEndian(starts[((sector * BlockBytes) + 8)..]);
            Span<byte> target = tweaks.Slice(sector * SectorBytes, SectorBytes);
            for (; target.Length > 0; target = target[BlockBytes..])
            {
                BinaryPrimitives.WriteUInt64LittleEndian(target, low);
                BinaryPrimitives.WriteUInt64LittleEndian(target[8..], high);
                // Times x modulo x^128 + x^7 + x^2 + x + 1.
                ulong carry = 0UL - (high >> 63);
                high = (high << 1) | (low >> 63);
                low = (low << 1) ^ (carry & 0x87);
            }
        }
    }

    private static void Xor(Span<byte> target, ReadOnlySpan<byte> with)
    {
        Span<Vector<byte>> targets = MemoryMarshal.Cast<byte, Vector<byte>>(target); // 512 is a multiple of any vector's size
        ReadOnlySpan<Vector<byte>> others = MemoryMarshal.Cast<byte, Vector<byte>>(with);
        for (int i = 0; i < targets.Length; i++)
            targets[i] ^= others[i];
    }
}
