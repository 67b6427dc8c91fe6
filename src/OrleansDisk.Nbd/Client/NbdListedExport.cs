using OrleansDisk.Nbd.Protocol;

namespace OrleansDisk.Nbd.Client;

/// <summary>An export as a server describes it to a client that only looks.</summary>
public sealed class NbdListedExport
{
    private readonly NegotiatedExport _export;

    internal NbdListedExport(string name, NegotiatedExport export, IReadOnlyList<string> contexts) =>
        (Name, _export, MetaContexts) = (name, export, contexts);

    public string Name { get; }

    /// <summary>Free text for people.</summary>
    public string Description => _export.Description;

    /// <summary>Whether the server told more than the name.</summary>
    public bool IsDescribed => _export.Flags.HasFlag(NbdTransmissionFlags.HasFlags);

    /// <summary>Size in bytes.</summary>
    public long Bytes => _export.Bytes;

    /// <summary>The transmission flags (NBD protocol, "Transmission flags").</summary>
    public int Flags => (int)_export.Flags;

    /// <summary>The smallest, the best and the largest block in bytes, or null when the server does not say.</summary>
    public (long Min, long Preferred, long Max)? BlockBytes =>
        _export.HasBlockSizes ? (_export.MinBlockBytes, _export.PreferredBlockBytes, _export.MaxBlockBytes) : null;

    /// <summary>What the export can tell about its blocks.</summary>
    public IReadOnlyList<string> MetaContexts { get; }
}
