using OrleansDisk.Qcow2.Data;

namespace OrleansDisk.Qcow2.Operations;

/// <summary>Makes a disk larger or smaller.</summary>
public static class ResizeOperation
{
    /// <summary>Makes a disk larger or smaller. Runs in the disk's turns; requests to it wait meanwhile.</summary>
    /// <param name="disk">The disk: an image, or a raw file.</param>
    /// <param name="virtualBytes">The new size, rounded up to whole sectors of 512 bytes.</param>
    /// <param name="mayShrink">Whether it may be smaller than the disk is: what is cut off is gone.</param>
    /// <param name="preallocation">What the new part has allocated; only for growth.</param>
    /// <exception cref="ShrinkNotAllowedException">It is smaller, and nobody said that it may be.</exception>
    /// <exception cref="Qcow2Exception">It can't be done; the disk is as it was.</exception>
    public static async Task RunAsync(IWritableDisk disk, long virtualBytes, bool mayShrink, Preallocation preallocation)
    {
        if (virtualBytes <= disk.VirtualBytes && preallocation != Preallocation.Off)
            throw new Qcow2Exception("Preallocation can only be used for growing images");
        if (virtualBytes < disk.VirtualBytes && !mayShrink)
            throw new ShrinkNotAllowedException(disk.FileName, disk.VirtualBytes, virtualBytes);
        switch (disk)
        {
            case Qcow2Image image:
                await image.ResizeAsync(virtualBytes, preallocation);
                break;
            case RawImage raw:
                await raw.ResizeAsync(virtualBytes, preallocation);
                break;
            case LuksImage luks:
                await luks.ResizeAsync(virtualBytes, preallocation);
                break;
            default:
                if (preallocation != Preallocation.Off)
                    throw new Qcow2UnsupportedException($"preallocating in '{disk.FileName}'", "resize without preallocation");
                await disk.ResizeAsync(virtualBytes);
                break;
        }
    }
}

/// <summary>A disk was to become smaller, and nobody said that it may.</summary>
public sealed class ShrinkNotAllowedException(string file, long fromBytes, long toBytes) : Qcow2Exception(
    $"'{file}' has {fromBytes} bytes and would be smaller with {toBytes}: what is cut off would be lost; say that this is wanted");
