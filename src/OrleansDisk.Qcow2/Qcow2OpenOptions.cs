using OrleansDisk.Qcow2.Concurrency;
using OrleansDisk.Qcow2.Data;
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

    /// <summary>What lies below the image in place of what its header names, or null. The image owns it once it is open.</summary>
    public IDiskSource? Backing { get; init; }

    /// <summary>Whether space that the guest discards goes back to the host.</summary>
    public bool PassDiscard { get; init; } = true;

    /// <summary>How work that is only computing leaves the image's scheduler for a while.</summary>
    internal Func<Action, ValueTask> RunBeside { get; init; } = ThreadPoolWork.RunAsync;

    /// <summary>How the files of the backing chain are opened.</summary>
    public Func<string, ImageAccess, IBlockFile> OpenFile { get; init; } = LocalBlockFile.Open;
}
