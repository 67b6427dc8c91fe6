using OrleansDisk.Abstractions;
using OrleansDisk.Qcow2.Data;

namespace OrleansDisk.Grains;

/// <summary>What a whole backing chain says of a range.</summary>
internal static class ChainExtents
{
    /// <summary>
    /// The extent that starts at <paramref name="offset"/>, for as far as the layer that answers says the same, at most
    /// <paramref name="bytes"/>. The range lies inside the disk.
    /// </summary>
    public static async ValueTask<SectorExtent> GetAsync(IDiskSource disk, long offset, long bytes)
    {
        for (IDiskSource? layer = disk; layer is not null && offset < layer.VirtualBytes; layer = layer.Backing)
        {
            DiskExtent extent = await layer.GetExtentAsync(offset, Math.Min(bytes, layer.VirtualBytes - offset));
            bytes = extent.Bytes;
            if (extent.State != DiskExtentState.Unallocated)
            {
                return new SectorExtent(bytes, IsHole: extent.State == DiskExtentState.Zero,
                    IsZero: extent.State != DiskExtentState.Data);
            }
        }
        return new SectorExtent(bytes, IsHole: true, IsZero: true);
    }
}
