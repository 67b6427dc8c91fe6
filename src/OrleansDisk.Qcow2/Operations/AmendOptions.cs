using OrleansDisk.Qcow2.Crypto;

namespace OrleansDisk.Qcow2.Operations;

/// <summary>What is to change about an image; what is null stays.</summary>
public sealed record AmendOptions
{
    /// <summary>Format version: 2 or 3.</summary>
    public int? Version { get; init; }

    /// <summary>Whether programs may delay refcount updates (version 3).</summary>
    public bool? LazyRefcounts { get; init; }

    /// <summary>Width of a refcount in bits: a power of two from 1 to 64; 16 in version 2.</summary>
    public long? RefcountBits { get; init; }

    /// <summary>Size of the disk in bytes, as <see cref="ResizeOperation"/> changes it; what is cut off is gone.</summary>
    public long? VirtualBytes { get; init; }

    /// <summary>Name of the backing file; it can only be the one that the image has.</summary>
    public string? BackingFile { get; init; }

    /// <summary>Format of the backing file; it can only be the one that the image has.</summary>
    public string? BackingFormat { get; init; }

    /// <summary>Name of the external data file as it is to be stored; empty: none is stored.</summary>
    public string? DataFile { get; init; }

    /// <summary>Whether the external data file can be read as a raw image; this can only be given up.</summary>
    public bool? DataFileRaw { get; init; }

    /// <summary>
    /// What is to become of the key slots of an image that LUKS encrypts. It is called once the image is known to have some,
    /// and may take time.
    /// </summary>
    public Func<LuksHeader, KeySlotChange>? KeySlots { get; init; }
}
