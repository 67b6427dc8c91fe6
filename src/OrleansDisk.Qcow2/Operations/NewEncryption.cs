using System.Security.Cryptography;
using OrleansDisk.Qcow2.Crypto;
using OrleansDisk.Qcow2.Format;

namespace OrleansDisk.Qcow2.Operations;

/// <summary>How a new image is to be encrypted.</summary>
public sealed record NewEncryption
{
    /// <summary>LUKS, or AES for those who must have the legacy encryption.</summary>
    public EncryptionMethod Method { get; init; } = EncryptionMethod.Luks;

    /// <summary>The password; with LUKS it opens key slot 0. It is the caller's.</summary>
    public required Secret Secret { get; init; }

    /// <summary>The cipher of LUKS.</summary>
    public LuksCipher Cipher { get; init; } = LuksCipher.Default;

    /// <summary>The hash of LUKS: SHA1, SHA256, SHA384 or SHA512.</summary>
    public HashAlgorithmName Hash { get; init; } = HashAlgorithmName.SHA256;

    /// <summary>Rounds of PBKDF2 that whoever guesses a password has to do; see <see cref="LuksKeys.IterationsFor"/>.</summary>
    public uint Iterations { get; init; } = 1_000_000;

    /// <summary>New keys, or null where the method has none in the image.</summary>
    internal LuksKeys? CreateKeys() =>
        Method == EncryptionMethod.Luks ? LuksKeys.Create(Secret.Bytes, Iterations, Cipher, Hash) : null;
}
