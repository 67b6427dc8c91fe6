using System.Buffers.Binary;
using System.Security.Cryptography;

namespace OrleansDisk.Qcow2.Crypto;

/// <summary>The initialization vector of each sector: its number, as it is or encrypted.</summary>
internal sealed class SectorVectors : IDisposable
{
    public const int VectorBytes = 16;

    private readonly ulong _mask;
    private readonly Aes? _cipher;

    private SectorVectors(ulong mask, Aes? cipher) => (_mask, _cipher) = (mask, cipher);

    /// <summary>"plain64": the number in 64 bits.</summary>
    public static SectorVectors Plain64() => new(ulong.MaxValue, cipher: null);

    /// <summary>"plain": its low 32 bits.</summary>
    public static SectorVectors Plain() => new(uint.MaxValue, cipher: null);

    /// <summary>"essiv:sha256": the number, encrypted with the hash of the disk's key.</summary>
    public static SectorVectors Essiv(ReadOnlySpan<byte> key)
    {
        Span<byte> hash = stackalloc byte[SHA256.HashSizeInBytes];
        SHA256.HashData(key, hash);
        var cipher = Aes.Create();
        SectorCipher.SetKey(cipher, hash);
        CryptographicOperations.ZeroMemory(hash);
        return new SectorVectors(ulong.MaxValue, cipher);
    }

    /// <summary>Fills in the vectors of neighbouring sectors, one behind the other.</summary>
    public void Fill(Span<byte> vectors, ulong first)
    {
        vectors.Clear();
        for (int at = 0; at < vectors.Length; at += VectorBytes, first++)
            BinaryPrimitives.WriteUInt64LittleEndian(vectors[at..], first & _mask);
        _cipher?.EncryptEcb(vectors, vectors, PaddingMode.None);
    }

    public void Dispose() => _cipher?.Dispose();
}
