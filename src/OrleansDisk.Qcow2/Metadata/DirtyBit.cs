using OrleansDisk.Qcow2.Format;

namespace OrleansDisk.Qcow2.Metadata;

/// <summary>
/// The dirty bit of images with lazy refcounts: set before the first allocation reaches the disk, gone with a clean close. Who
/// finds it repairs the refcounts. Here they are written all the same, in their place (docs/decisions/0007-lazy-refcounts.md).
/// </summary>
internal static class DirtyBit
{
    /// <summary>Whether writers of the image set it.</summary>
    /// <exception cref="Qcow2Exception">It is asked for, and the image can't have it.</exception>
    public static bool IsWanted(Header header, Qcow2OpenOptions options)
    {
        if (options.LazyRefcounts == true && header.Version < 3)
            throw new Qcow2Exception("Lazy refcounts require a qcow2 image with at least qemu 1.1 compatibility level");
        return options.LazyRefcounts ?? header.Compatible.HasFlag(CompatibleFeatures.LazyRefcounts);
    }
}
