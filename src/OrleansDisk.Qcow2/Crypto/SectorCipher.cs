using System.Security.Cryptography;

namespace OrleansDisk.Qcow2.Crypto;

/// <summary>
/// Encrypts and decrypts disk sectors of 512 bytes in place, each by its number. Many threads may use it at once.
/// Disposing it wipes its keys.
/// </summary>
public abstract class SectorCipher : IDisposable
{
    public const int SectorBytes = 512;

    /// <summary>Encrypts whole sectors.</summary>
    /// <param name="sectors">The bytes: a multiple of <see cref="SectorBytes"/>.</param>
    /// <param name="first">Number of the first sector; the cipher says where it is counted from.</param>
    public void Encrypt(Span<byte> sectors, ulong first)
    {
        ThrowIfPartial(sectors);
        Transform(sectors, first, encrypts: true);
    }

    /// <summary>Decrypts whole sectors; see <see cref="Encrypt"/>.</summary>
    public void Decrypt(Span<byte> sectors, ulong first)
    {
        ThrowIfPartial(sectors);
        Transform(sectors, first, encrypts: false);
    }

    public void Dispose()
    {
        Dispose(true);
        GC.SuppressFinalize(this);
    }

    protected abstract void Transform(Span<byte> sectors, ulong first, bool encrypts);

    protected abstract void Dispose(bool disposing);

    internal static void SetKey(Aes aes, ReadOnlySpan<byte> key)
    {
        byte[] copy = key.ToArray();
        aes.Key = copy;
        CryptographicOperations.ZeroMemory(copy);
    }

    private static void ThrowIfPartial(ReadOnlySpan<byte> sectors)
    {
        if (sectors.Length % SectorBytes != 0)
            throw new ArgumentException($"{sectors.Length} bytes are no whole sectors", nameof(sectors));
    }
}
