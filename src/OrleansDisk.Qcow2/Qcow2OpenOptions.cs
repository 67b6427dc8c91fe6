using OrleansDisk.Qcow2.Check;
using OrleansDisk.Qcow2.Concurrency;
using OrleansDisk.Qcow2.Crypto;
using OrleansDisk.Qcow2.Data;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Qcow2;

/// <summary>How an image is opened.</summary>
public sealed record Qcow2OpenOptions
{
    /// <summary>What is wanted of the image, and so which locks are taken.</summary>
    public ImageAccess Access { get; init; } = ImageAccess.Read;

    /// <summary>Memory for L2 slices, in bytes; at least two are kept. Null: 32 MiB, or what <see cref="CacheBytes"/> leaves.</summary>
    public long? L2CacheBytes { get; init; }

    /// <summary>Memory for refcount blocks, in bytes; at least two are kept. Null: 8 MiB, or what <see cref="CacheBytes"/> leaves.</summary>
    public long? RefcountCacheBytes { get; init; }

    /// <summary>Memory for both caches, in bytes, or null: each has its own limit.</summary>
    public long? CacheBytes { get; init; }

    /// <summary>
    /// Length of an L2 slice in bytes, the part of an L2 table that is read and cached by itself: a power of two from 512 to the
    /// cluster size. Null: 4 KiB, or a cluster that is smaller.
    /// </summary>
    public long? L2CacheEntryBytes { get; init; }

    /// <summary>
    /// After how much time without use tables leave the caches, for whoever calls
    /// <see cref="Qcow2Image.DropUnusedTablesAsync"/>; zero: never.
    /// </summary>
    public TimeSpan CacheCleanInterval { get; init; } = TimeSpan.FromSeconds(600);

    /// <summary>The internal snapshot that is the disk, of an image that is opened for reading; null: the active disk.</summary>
    public SnapshotSelector? Snapshot { get; init; }

    /// <summary>Whether the backing chain is opened too; without it, what the image does not hold reads as zeros.</summary>
    public bool OpenBacking { get; init; } = true;

    /// <summary>What lies below the image in place of what its header names, or null. The image owns it once it is open.</summary>
    public IDiskSource? Backing { get; init; }

    /// <summary>
    /// The file with the guest data in place of the one that the header names, or null. The image owns it once it is open.
    /// </summary>
    public IBlockFile? DataFile { get; init; }

    /// <summary>Whether space that the guest discards goes back to the host (pass-discard-request).</summary>
    public bool PassDiscard { get; init; } = true;

    /// <summary>Whether space that a deleted snapshot held goes back to the host (pass-discard-snapshot).</summary>
    public bool PassDiscardOfSnapshots { get; init; } = true;

    /// <summary>Whether space that is free for any other reason goes back to the host (pass-discard-other).</summary>
    public bool PassDiscardOfOthers { get; init; }

    /// <summary>
    /// Whether a cluster that the guest discards stays where it is, so that the file keeps its order: its entry says zero, its
    /// space goes back to the host if that is asked for, and the next write of it has its old place (discard-no-unref).
    /// </summary>
    public bool KeepDiscardedClusters { get; init; }

    /// <summary>
    /// Whether zeros that are written get an entry even where nothing is allocated and zeros are read already, as QEMU has it: who
    /// looks at the image alone sees that they were written, and for each L2 table that they touch there is one. Else they change
    /// nothing there. Discards never do.
    /// </summary>
    public bool NotesAllZeroes { get; init; }

    /// <summary>Whether refcounts may be written late (lazy-refcounts), or null: what the image says.</summary>
    public bool? LazyRefcounts { get; init; }

    /// <summary>Told what is found and done when an image that was not closed cleanly is repaired before it is written (dirty bit).</summary>
    public Action<CheckFinding>? Repairing { get; init; }

    /// <summary>Which metadata is looked for wherever something is about to be written (overlap-check).</summary>
    public OverlapChecks OverlapChecks { get; init; } = OverlapChecks.Cached;

    /// <summary>The password of an encrypted image (encrypt.key-secret); it is the caller's. Backing files have their own.</summary>
    public Secret? Secret { get; init; }

    /// <summary>"luks" or "aes" for who wants nothing else (encrypt.format), or null.</summary>
    public string? EncryptionFormat { get; init; }

    /// <summary>How work that is only computing leaves the image's scheduler for a while.</summary>
    internal Func<Action, ValueTask> RunBeside { get; init; } = ThreadPoolWork.RunAsync;

    /// <summary>How the files of the backing chain, and an external data file, are opened.</summary>
    public Func<string, ImageAccess, IBlockFile> OpenFile { get; init; } = LocalBlockFile.Open;
}
