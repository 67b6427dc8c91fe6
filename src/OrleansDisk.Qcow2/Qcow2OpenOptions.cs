using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Qcow2;

/// <summary>How an image is opened.</summary>
public sealed record Qcow2OpenOptions
{
    /// <summary>What is wanted of the image, and so which locks are taken.</summary>
    public ImageAccess Access { get; init; } = ImageAccess.Read;

    /// <summary>Memory for L2 slices, in bytes; at least two are kept. Default 32 MiB.</summary>
    public long L2CacheBytes { get; init; } = 32L << 20;

    /// <summary>Memory for refcount blocks, in bytes; at least two blocks are kept. Default 8 MiB.</summary>
    public long RefcountCacheBytes { get; init; } = 8L << 20;

    /// <summary>Whether the backing chain is opened too; without it, what the image does not hold reads as zeros.</summary>
    public bool OpenBacking { get; init; } = true;

    /// <summary>Whether space that the guest discards goes back to the host.</summary>
    public bool PassDiscard { get; init; } = true;

    /// <summary>How the files of the backing chain are opened.</summary>
    internal Func<string, ImageAccess, IBlockFile> OpenFile { get; init; } = LocalBlockFile.Open;
}
