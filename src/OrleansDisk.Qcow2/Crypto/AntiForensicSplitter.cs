using System.Buffers.Binary;
using System.Security.Cryptography;

namespace OrleansDisk.Qcow2.Crypto;

/// <summary>
/// Spreads a key over many stripes, all of which are needed to get it back: whoever destroys a few bytes of the stripes
/// destroys the key (LUKS1 on-disk format, section 2.4).
/// </summary>
internal static class AntiForensicSplitter
{
    /// <summary>Makes the stripes of a key.</summary>
    /// <param name="key">The key.</param>
    /// <param name="stripes">Takes them: a multiple of the key's length.</param>
    /// <param name="hash">The hash that mixes them.</param>
    public static void Split(ReadOnlySpan<byte> key, Span<byte> stripes, HashAlgorithmName hash)
    {
        Span<byte> last = stripes[^key.Length..];
        RandomNumberGenerator.Fill(stripes[..^key.Length]);
        Mix(stripes[..^key.Length], last, hash);
        Xor(last, key);
    }

    /// <summary>Gets the key back.</summary>
    public static void Merge(ReadOnlySpan<byte> stripes, Span<byte> key, HashAlgorithmName hash)
    {
        Mix(stripes[..^key.Length], key, hash);
        Xor(key, stripes[^key.Length..]);
    }

    private static void Mix(ReadOnlySpan<byte> stripes, Span<byte> mixed, HashAlgorithmName hash)
    {
        mixed.Clear();
        for (; stripes.Length > 0; stripes = stripes[mixed.Length..])
        {
            Xor(mixed, stripes[..mixed.Length]);
            Diffuse(mixed, hash);
        }
    }

    /// <summary>Hashes a block piece by piece, each with its number in front.</summary>
    private static void Diffuse(Span<byte> block, HashAlgorithmName hash)
    {
        Span<byte> digest = stackalloc byte[64];
        Span<byte> numbered = stackalloc byte[sizeof(uint) + 64];
        for (uint number = 0; block.Length > 0; number++)
        {
            int digestBytes = LuksHeader.DigestBytesOf(hash);
            int bytes = Math.Min(digestBytes, block.Length);
            BinaryPrimitives.WriteUInt32BigEndian(numbered, number);
            block[..bytes].CopyTo(numbered[sizeof(uint)..]);
            CryptographicOperations.HashData(hash, numbered[..(sizeof(uint) + bytes)], digest);
            digest[..bytes].CopyTo(block);
            block = block[bytes..];
        }
        CryptographicOperations.ZeroMemory(digest);
        CryptographicOperations.ZeroMemory(numbered);
    }

    private static void Xor(Span<byte> target, ReadOnlySpan<byte> with)
    {
        for (int i = 0; i < target.Length; i++)
            target[i] ^= with[i];
    }
}
