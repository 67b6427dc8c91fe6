namespace OrleansDisk.Qcow2;

/// <summary>What a new disk, or the new part of one, has allocated from the start.</summary>
public enum Preallocation
{
    /// <summary>Nothing but its own tables.</summary>
    Off,

    /// <summary>A host cluster for every guest cluster, in order, not written: the disk reads as zeros.</summary>
    Metadata,

    /// <summary>And space that the host keeps ready for all of them.</summary>
    Falloc,

    /// <summary>And zeros written into all of them.</summary>
    Full,
}
