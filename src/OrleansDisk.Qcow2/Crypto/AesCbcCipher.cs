using System.Security.Cryptography;

namespace OrleansDisk.Qcow2.Crypto;

/// <summary>
/// AES in CBC mode, each sector for itself: what LUKS used before XTS, and the encryption of crypt_method 1. It is weak, and
/// is here for images that have it.
/// </summary>
public sealed class AesCbcCipher : SectorCipher
{
    private const int LegacyKeyBytes = 16;

    private readonly Aes _aes = Aes.Create();
    private readonly SectorVectors _vectors;

    internal AesCbcCipher(ReadOnlySpan<byte> key, SectorVectors vectors)
    {
        SetKey(_aes, key);
        _vectors = vectors;
    }

    /// <summary>
    /// The encryption of crypt_method 1: AES-128, the password itself as the key, the number of the guest sector as the
    /// initialization vector.
    /// </summary>
    /// <param name="password">Its first 16 bytes are the key; a shorter one is filled with zeros.</param>
    public static AesCbcCipher Legacy(ReadOnlySpan<byte> password)
    {
        Span<byte> key = stackalloc byte[LegacyKeyBytes];
        key.Clear();
        password[..Math.Min(password.Length, LegacyKeyBytes)].CopyTo(key);
        var cipher = new AesCbcCipher(key, SectorVectors.Plain64());
        CryptographicOperations.ZeroMemory(key);
        return cipher;
    }

    protected override void Transform(Span<byte> sectors, ulong first, bool encrypts)
    {
        Span<byte> vector = stackalloc byte[SectorVectors.VectorBytes];
        for (; sectors.Length > 0; sectors = sectors[SectorBytes..], first++)
        {
            Span<byte> sector = sectors[..SectorBytes];
            _vectors.Fill(vector, first);
            _ = encrypts ? _aes.EncryptCbc(sector, vector, sector, PaddingMode.None)
                : _aes.DecryptCbc(sector, vector, sector, PaddingMode.None);
        }
    }

    protected override void Dispose(bool disposing)
    {
        _aes.Dispose();
        _vectors.Dispose();
    }
}
