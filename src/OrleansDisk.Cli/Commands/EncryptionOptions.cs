using System.Security.Cryptography;
using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Cli.Opening;
using OrleansDisk.Qcow2.Crypto;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Cli.Commands;

/// <summary>The options of -o that make a new image an encrypted one.</summary>
internal static class EncryptionOptions
{
    private const string Format = "encrypt.format";
    private const string KeySecret = "encrypt.key-secret";
    private const string CipherAlgorithm = "encrypt.cipher-alg";
    private const string CipherMode = "encrypt.cipher-mode";
    private const string VectorGenerator = "encrypt.ivgen-alg";
    private const string VectorHash = "encrypt.ivgen-hash-alg";
    private const string HashAlgorithm = "encrypt.hash-alg";
    internal const string IterationTime = "encrypt.iter-time";

    /// <summary>The older way to ask for legacy AES.</summary>
    private const string Legacy = "encryption";

    private const long DefaultMilliseconds = 2000;
    private const long MaxMilliseconds = 3_600_000;

    private static readonly string[] _luksNames = [CipherAlgorithm, CipherMode, VectorGenerator, VectorHash, HashAlgorithm, IterationTime];

    private static readonly string[] _ciphers =
    [
        "aes-128", "aes-192", "aes-256", "des", "3des", "cast5-128", "serpent-128", "serpent-192", "serpent-256",
        "twofish-128", "twofish-192", "twofish-256",
    ];

    private static readonly string[] _hashes = ["md5", "sha1", "sha224", "sha256", "sha384", "sha512", "ripemd160"];

    /// <summary>All names, in the order in which QEMU prints them.</summary>
    public static IReadOnlyList<string> Names { get; } = [Legacy, Format, KeySecret, .. _luksNames];

    /// <summary>What the options ask for, or null. The caller wipes the secret.</summary>
    /// <exception cref="CommandFailedException">A value can't be had, in QEMU's words.</exception>
    public static NewEncryption? Parse(CreationOptions values, Secrets secrets)
    {
        string? format = values[Format] ?? (values.Switch(Legacy) ? "aes" : null);
        if (format is null)
        {
            return Names.Any(name => name != Legacy && values[name] is not null)
                ? throw new CommandFailedException($"Parameter '{Format}' is missing") : null;
        }
        if (format is not ("aes" or "luks"))
            throw new CommandFailedException($"Parameter 'format' does not accept value '{format}'");
        if (format == "aes" && _luksNames.FirstOrDefault(name => values[name] is not null) is { } unexpected)
            throw new CommandFailedException($"Parameter '{unexpected}' is unexpected");
        LuksCipher cipher = ParseCipher(values);
        HashAlgorithmName hash = ParseHash(Choice(values, HashAlgorithm, "sha256", _hashes));
        byte[] password = secrets.Find(values[KeySecret] ?? throw new CommandFailedException($"Parameter '{KeySecret}' is required for cipher"));
        return new NewEncryption
        {
            Method = format == "aes" ? EncryptionMethod.Aes : EncryptionMethod.Luks,
            Secret = new Secret(password),
            Cipher = cipher,
            Hash = hash,
            Iterations = format == "aes" ? 0 : Iterations(values, hash),
        };
    }

    /// <summary>How many rounds take the time that was asked for, or QEMU's two seconds.</summary>
    public static uint Iterations(CreationOptions values, HashAlgorithmName hash)
    {
        long milliseconds = values.Number(IterationTime) ?? DefaultMilliseconds;
        if (milliseconds is < 0 or > MaxMilliseconds)
            throw new CommandFailedException($"PBKDF iterations for {milliseconds} milliseconds too large to scale; use 0 to {MaxMilliseconds}");
        return LuksKeys.IterationsFor(TimeSpan.FromMilliseconds(milliseconds), TimeProvider.System, hash);
    }

    private static LuksCipher ParseCipher(CreationOptions values)
    {
        string generator = Choice(values, VectorGenerator, "plain64", ["plain", "plain64", "essiv"]);
        string? hash = values[VectorHash] is null ? null : Choice(values, VectorHash, "", _hashes);
        return new LuksCipher
        {
            Algorithm = Choice(values, CipherAlgorithm, "aes-256", _ciphers),
            Mode = Choice(values, CipherMode, "xts", ["ecb", "cbc", "xts", "ctr"]),
            VectorGenerator = generator,
            VectorHash = hash ?? (generator == "essiv" ? "sha256" : null),
        };
    }

    private static string Choice(CreationOptions values, string name, string otherwise, IReadOnlyList<string> choices)
    {
        string value = values[name] ?? otherwise;
        return choices.Contains(value) ? value
            : throw new CommandFailedException($"Parameter '{name["encrypt.".Length..]}' does not accept value '{value}'");
    }

    private static HashAlgorithmName ParseHash(string name) => name switch
    {
        "sha1" => HashAlgorithmName.SHA1,
        "sha256" => HashAlgorithmName.SHA256,
        "sha384" => HashAlgorithmName.SHA384,
        "sha512" => HashAlgorithmName.SHA512,
        _ => throw new CommandFailedException($"the hash '{name}' is not supported by this version; use sha1, sha256, sha384 or sha512"),
    };
}
