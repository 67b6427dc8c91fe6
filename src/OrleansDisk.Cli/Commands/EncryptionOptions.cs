using System.Security.Cryptography;
using System.Text.Unicode;
using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Cli.Opening;
using OrleansDisk.Qcow2.Crypto;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Cli.Commands;

/// <summary>The options of -o that make a new image an encrypted one.</summary>
internal static class EncryptionOptions
{
    /// <summary>What the options of a qcow2 image begin with; those of a plain LUKS image have nothing in its place.</summary>
    public const string Qcow2Prefix = "encrypt.";

    public const string IterationTime = "iter-time";

    private const string Format = Qcow2Prefix + "format";
    private const string KeySecret = "key-secret";
    private const string CipherAlgorithm = "cipher-alg";
    private const string CipherMode = "cipher-mode";
    private const string VectorGenerator = "ivgen-alg";
    private const string VectorHash = "ivgen-hash-alg";
    private const string HashAlgorithm = "hash-alg";

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

    /// <summary>All names for a qcow2 image, in the order in which QEMU prints them.</summary>
    public static IReadOnlyList<string> Names { get; } = [Legacy, Format, Qcow2Prefix + KeySecret, .. _luksNames.Select(name => Qcow2Prefix + name)];

    /// <summary>All names for a plain LUKS image.</summary>
    public static IReadOnlyList<string> PlainNames { get; } = [KeySecret, .. _luksNames];

    /// <summary>What the options of a qcow2 image ask for, or null. The caller wipes the secret.</summary>
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
        if (format == "luks")
            return ParseLuks(values, secrets, Qcow2Prefix);
        if (_luksNames.FirstOrDefault(name => values[Qcow2Prefix + name] is not null) is { } unexpected)
            throw new CommandFailedException($"Parameter '{Qcow2Prefix}{unexpected}' is unexpected");
        return new NewEncryption { Method = EncryptionMethod.Aes, Secret = FindKey(values, secrets, Qcow2Prefix) };
    }

    /// <summary>What is asked for where LUKS is not a matter of choice. The caller wipes the secret.</summary>
    /// <param name="values">All options.</param>
    /// <param name="secrets">Those that the options name.</param>
    /// <param name="prefix">What the names begin with.</param>
    /// <exception cref="CommandFailedException">A value can't be had, in QEMU's words.</exception>
    public static NewEncryption ParseLuks(CreationOptions values, Secrets secrets, string prefix)
    {
        LuksCipher cipher = ParseCipher(values, prefix);
        HashAlgorithmName hash = ParseHash(Choice(values, prefix, HashAlgorithm, "sha256", _hashes));
        return new NewEncryption
        {
            Method = EncryptionMethod.Luks,
            Secret = FindKey(values, secrets, prefix),
            Cipher = cipher,
            Hash = hash,
            Iterations = Iterations(values, hash, prefix),
        };
    }

    /// <summary>How many rounds take the time that was asked for, or QEMU's two seconds.</summary>
    public static uint Iterations(CreationOptions values, HashAlgorithmName hash, string prefix)
    {
        long milliseconds = values.Number(prefix + IterationTime) ?? DefaultMilliseconds;
        if (milliseconds is < 0 or > MaxMilliseconds)
            throw new CommandFailedException($"PBKDF iterations for {milliseconds} milliseconds too large to scale; use 0 to {MaxMilliseconds}");
        return LuksKeys.IterationsFor(TimeSpan.FromMilliseconds(milliseconds), TimeProvider.System, hash);
    }

    private static Secret FindKey(CreationOptions values, Secrets secrets, string prefix)
    {
        string id = values[prefix + KeySecret] ?? throw new CommandFailedException($"Parameter '{prefix}{KeySecret}' is required for cipher");
        byte[] password = secrets.Find(id);
        return Utf8.IsValid(password) ? new Secret(password)
            : throw new CommandFailedException($"Data from secret {id} is not valid UTF-8");
    }

    private static LuksCipher ParseCipher(CreationOptions values, string prefix)
    {
        string generator = Choice(values, prefix, VectorGenerator, "plain64", ["plain", "plain64", "essiv"]);
        string? hash = values[prefix + VectorHash] is null ? null : Choice(values, prefix, VectorHash, "", _hashes);
        return new LuksCipher
        {
            Algorithm = Choice(values, prefix, CipherAlgorithm, "aes-256", _ciphers),
            Mode = Choice(values, prefix, CipherMode, "xts", ["ecb", "cbc", "xts", "ctr"]),
            VectorGenerator = generator,
            VectorHash = hash ?? (generator == "essiv" ? "sha256" : null),
        };
    }

    private static string Choice(CreationOptions values, string prefix, string name, string otherwise, IReadOnlyList<string> choices)
    {
        string value = values[prefix + name] ?? otherwise;
        return choices.Contains(value) ? value
            : throw new CommandFailedException($"Parameter '{name}' does not accept value '{value}'");
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
