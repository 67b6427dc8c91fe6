using System.Security.Cryptography;
using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Cli.Opening;
using OrleansDisk.Qcow2.Crypto;

namespace OrleansDisk.Cli.Commands;

/// <summary>The options of -o that fill and erase key slots.</summary>
internal static class KeySlotOptions
{
    private const string State = "state";
    private const string NewSecret = "new-secret";
    private const string OldSecret = "old-secret";
    private const string KeySlot = "keyslot";

    private static readonly string[] _names = [State, NewSecret, OldSecret, KeySlot, EncryptionOptions.IterationTime];

    /// <summary>Whether anything is said of key slots.</summary>
    public static bool AreGiven(CreationOptions values, string prefix) => _names.Any(name => values[prefix + name] is not null);

    /// <summary>What the options ask for; measures this machine where a slot is to be filled.</summary>
    /// <param name="values">All options.</param>
    /// <param name="secrets">Those that the options name.</param>
    /// <param name="prefix">What their names begin with.</param>
    /// <param name="hash">The hash of the image's passwords.</param>
    /// <exception cref="CommandFailedException">A value can't be had, in QEMU's words.</exception>
    public static KeySlotChange Parse(CreationOptions values, Secrets secrets, string prefix, HashAlgorithmName hash)
    {
        bool activates = values[prefix + State] switch
        {
            "active" => true,
            "inactive" => false,
            null => throw new CommandFailedException("Parameter 'state' is missing"),
            { } other => throw new CommandFailedException($"Parameter 'state' does not accept value '{other}'"),
        };
        bool givesTime = values[prefix + EncryptionOptions.IterationTime] is not null;
        return new KeySlotChange
        {
            Activates = activates,
            Slot = values.Number(prefix + KeySlot),
            NewSecret = Find(NewSecret),
            OldSecret = Find(OldSecret),
            Iterations = activates || givesTime ? EncryptionOptions.Iterations(values, hash, prefix) : null,
        };

        Secret? Find(string name) => values[prefix + name] is { } id ? new Secret(secrets.Find(id)) : null;
    }
}
