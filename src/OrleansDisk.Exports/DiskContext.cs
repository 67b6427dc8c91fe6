using OrleansDisk.Nbd.Server;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Bitmaps;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Exports;

/// <summary>A metadata context of an export beside base:allocation (QEMU's docs/interop/nbd.txt).</summary>
public abstract class DiskContext
{
    /// <summary>The context's name in the protocol.</summary>
    public abstract string Name { get; }

    /// <summary>Tells a block-status request what the context says of its range; in a turn of the disk.</summary>
    internal abstract ValueTask ReportAsync(NbdRequest request, int context, SharedDisk disk);
}

/// <summary>qemu:dirty-bitmap:NAME: 1 is dirty, 0 clean.</summary>
/// <param name="bitmap">The bitmap's name.</param>
/// <param name="image">The image that has it; null: the one on top of the exported chain.</param>
public sealed class DirtyBitmapContext(string bitmap, Qcow2Image? image = null) : DiskContext
{
    private const uint Dirty = 1;

    /// <summary>The bitmap's name.</summary>
    public string Bitmap => bitmap;

    public override string Name => NameOf(bitmap);

    /// <summary>The context's name for a bitmap.</summary>
    public static string NameOf(string bitmap) => $"qemu:dirty-bitmap:{bitmap}";

    /// <summary>What clients are told of an extent.</summary>
    public static uint FlagsOf(bool isDirty) => isDirty ? Dirty : 0;

    internal override async ValueTask ReportAsync(NbdRequest request, int context, SharedDisk disk)
    {
        Qcow2Image source = image ?? disk.Image ?? throw new NotSupportedException($"'{disk.Source.FileName}' can't have bitmaps");
        long end = request.Offset + request.Length;
        bool wantsMore = true;
        for (long at = request.Offset; at < end && wantsMore;)
        {
            // A backing file may be shorter than what lies above it.
            BitmapExtent extent = at >= source.VirtualBytes ? new BitmapExtent(end - at, IsDirty: false)
                : await source.GetBitmapExtentAsync(bitmap, at, Math.Min(end, source.VirtualBytes) - at);
            wantsMore = request.AddExtent(context, extent.Bytes, FlagsOf(extent.IsDirty));
            at += extent.Bytes;
        }
    }
}

/// <summary>qemu:allocation-depth: 0 nowhere, 1 in the image itself, 2 in its backing file, and so on.</summary>
public sealed class AllocationDepthContext : DiskContext
{
    public override string Name => "qemu:allocation-depth";

    internal override async ValueTask ReportAsync(NbdRequest request, int context, SharedDisk disk)
    {
        await foreach (MapExtent extent in MapOperation.WalkAsync(disk.Layers, request.Offset, request.Length))
        {
            if (!request.AddExtent(context, extent.Bytes, extent.IsPresent ? (uint)extent.Depth + 1 : 0))
                return;
        }
    }
}
