using System.Security.Cryptography;
using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Cli.Opening;
using OrleansDisk.Qcow2.Crypto;

namespace OrleansDisk.Cli.Commands;

/// <summary>The options of -o that fill and erase key slots.</summary>
internal static class KeySlotOptions
{
    private const string State = "encrypt.state";
    private const string NewSecret = "encrypt.new-secret";
    private const string OldSecret = "encrypt.old-secret";
    private const string KeySlot = "encrypt.keyslot";

    private static readonly string[] _names = [State, NewSecret, OldSecret, KeySlot, EncryptionOptions.IterationTime];

    /// <summary>Whether anything is said of key slots.</summary>
    public static bool AreGiven(CreationOptions values) => _names.Any(name => values[name] is not null);

    /// <summary>What the options ask for; measures this machine where a slot is to be filled.</summary>
    /// <param name="values">All options.</param>
    /// <param name="secrets">Those that the options name.</param>
    /// <param name="hash">The hash of the image's passwords.</param>
    /// <exception cref="CommandFailedException">A value can't be had, in QEMU's words.</exception>
    public static KeySlotChange Parse(CreationOptions values, Secrets secrets, HashAlgorithmName hash)
    {
        bool activates = values[State] switch
        {
            "active" => true,
            "inactive" => false,
            null => throw new CommandFailedException("Parameter 'state' is missing"),
            { } other => throw new CommandFailedException($"Parameter 'state' does not accept value '{other}'"),
        };
        bool givesTime = values[EncryptionOptions.IterationTime] is not null;
        return new KeySlotChange
        {
            Activates = activates,
            Slot = values.Number(KeySlot),
            NewSecret = Find(NewSecret),
            OldSecret = Find(OldSecret),
            Iterations = activates || givesTime ? EncryptionOptions.Iterations(values, hash) : null,
        };

        Secret? Find(string name) => values[name] is { } id ? new Secret(secrets.Find(id)) : null;
    }
}
