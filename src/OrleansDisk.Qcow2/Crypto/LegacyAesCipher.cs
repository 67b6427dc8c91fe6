using System.Buffers.Binary;
using System.Security.Cryptography;

namespace OrleansDisk.Qcow2.Crypto;

/// <summary>
/// The encryption of crypt_method 1: AES-128 in CBC mode, the password itself as the key, the number of the guest sector as the
/// initialization vector. It is weak, and is here for images that have it.
/// </summary>
public sealed class LegacyAesCipher : SectorCipher
{
    private const int KeyBytes = 16;

    private readonly Aes _aes = Aes.Create();

    /// <param name="password">Its first 16 bytes are the key; a shorter one is filled with zeros.</param>
    public LegacyAesCipher(ReadOnlySpan<byte> password)
    {
        Span<byte> key = stackalloc byte[KeyBytes];
        key.Clear();
        password[..Math.Min(password.Length, KeyBytes)].CopyTo(key);
        AesXtsCipher.SetKey(_aes, key);
        CryptographicOperations.ZeroMemory(key);
    }

    protected override void Transform(Span<byte> sectors, ulong first, bool encrypts)
    {
        Span<byte> vector = stackalloc byte[16];
        vector.Clear();
        for (; sectors.Length > 0; sectors = sectors[SectorBytes..], first++)
        {
            Span<byte> sector = sectors[..SectorBytes];
            BinaryPrimitives.WriteUInt64LittleEndian(vector, first);
            _ = encrypts ? _aes.EncryptCbc(sector, vector, sector, PaddingMode.None)
                : _aes.DecryptCbc(sector, vector, sector, PaddingMode.None);
        }
    }

    protected override void Dispose(bool disposing) => _aes.Dispose();
}
