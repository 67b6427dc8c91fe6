using OrleansDisk.Qcow2.Crypto;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Qcow2.Data;

/// <summary>The cipher of an encrypted image, found by its secret.</summary>
internal static class ImageCipher
{
    /// <summary>Unlocks an image; null when it is not encrypted.</summary>
    /// <exception cref="Qcow2Exception">There is no secret, or it is the wrong one, or the format is not what was asked for.</exception>
    public static async Task<SectorCipher?> OpenAsync(IBlockFile file, Header header, Qcow2OpenOptions options)
    {
        if (header.Encryption != EncryptionMethod.Luks && header.Find(HeaderExtensionType.Encryption) is not null)
            throw new Qcow2FormatException("CRYPTO header extension only expected with LUKS encryption method");
        EnsureFormat(header.Encryption, options.EncryptionFormat);
        if (header.Encryption == EncryptionMethod.None)
            return null;
        using LuksKeys? keys = header.Encryption == EncryptionMethod.Luks ? await KeyReader.ReadAsync(file, header) : null;
        Secret secret = options.Secret ?? throw new Qcow2Exception("Parameter 'encrypt.key-secret' is required for cipher");
        if (keys is null)
            return AesCbcCipher.Legacy(secret.Bytes);
        bool isUnlocked = false;
        // Deriving a key takes a second or two, on purpose.
        await options.RunBeside(() => isUnlocked = keys.TryUnlock(secret.Bytes));
        return isUnlocked ? keys.CreateCipher() : throw new Qcow2Exception("Invalid password, cannot unlock any keyslot");
    }

    private static void EnsureFormat(EncryptionMethod actual, string? asked)
    {
        string? format = actual switch { EncryptionMethod.None => null, EncryptionMethod.Aes => "aes", _ => "luks" };
        if (asked is null || asked == format)
            return;
        throw new Qcow2Exception(format is null
            ? $"No encryption in image header, but options specified format '{asked}'"
            : $"Header reported '{format}' encryption format but options specify '{asked}'");
    }
}
