namespace OrleansDisk.Qcow2.Metadata;

/// <summary>Why clusters became free, which decides whether their space goes back to the host.</summary>
internal enum DiscardType
{
    /// <summary>They are about to be used again: their space stays.</summary>
    Never,

    /// <summary>It goes back whatever the options say.</summary>
    Always,

    /// <summary>The guest gave the data up.</summary>
    Request,

    /// <summary>A snapshot that held them was deleted.</summary>
    Snapshot,

    /// <summary>Any other reason.</summary>
    Other,
}

/// <summary>Which freed clusters go back to the host.</summary>
internal sealed class DiscardPolicy(Qcow2OpenOptions options)
{
    /// <summary>Whether a cluster that the guest discards keeps its place in the file.</summary>
    public bool KeepsDiscardedClusters => options.KeepDiscardedClusters;

    public bool Passes(DiscardType type) => type switch
    {
        DiscardType.Always => true,
        DiscardType.Request => options.PassDiscard,
        DiscardType.Snapshot => options.PassDiscardOfSnapshots,
        DiscardType.Other => options.PassDiscardOfOthers,
        _ => false,
    };
}
