using System.Buffers.Binary;
using System.Numerics;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Qcow2.Operations;

/// <summary>
/// Finds out whether an image has far more clusters in use than its file takes space for: then its metadata was
/// preallocated, and data clusters may be holes.
/// </summary>
public static class PreallocationProbe
{
    /// <summary>Whether the image uses a ninth, and two clusters, more than the file has allocated.</summary>
    /// <param name="file">The image's file.</param>
    /// <param name="header">Its header.</param>
    /// <param name="allocatedBytes">What the file takes on its file system, see <see cref="FileSpace"/>.</param>
    public static async Task<bool> IsPreallocatedAsync(IBlockFile file, Header header, long allocatedBytes)
    {
        ClusterGeometry geometry = header.Geometry;
        if (geometry.HasExternalData)
            return false; // its clusters are in no refcount
        long allocated = allocatedBytes >> geometry.ClusterBits;
        long limit = allocated + Math.Max(allocated / 9, 2);
        long fileClusters = geometry.ClusterCount(file.LengthBytes);
        // An image can't use more clusters than its file is long: most need no look at their refcounts.
        if (fileClusters < limit)
            return false;
        byte[] entry = new byte[sizeof(ulong)];
        byte[] block = new byte[geometry.ClusterBytes];
        long used = 0;
        long blockCount = Math.Min(
            (long)header.RefcountTableClusters << (geometry.ClusterBits - 3),
            (fileClusters + geometry.RefcountBlockEntryCount - 1) >> geometry.RefcountBlockBits);
        for (long index = 0; index < blockCount && used < limit; index++)
        {
            await file.ReadAsync(header.RefcountTable.Bytes + (index * sizeof(ulong)), entry);
            var tableEntry = new RefcountTableEntry(BinaryPrimitives.ReadUInt64BigEndian(entry));
            if (!tableEntry.IsAllocated || tableEntry.Raw > (ulong)file.LengthBytes)
                continue;
            await file.ReadAsync(tableEntry.Block.Bytes, block);
            used += CountUsed(block, geometry);
        }
        return used >= limit;
    }

    private static long CountUsed(byte[] block, ClusterGeometry geometry)
    {
        long used = 0;
        if (geometry.RefcountOrder == 0)
        {
            foreach (byte refcounts in block)
                used += BitOperations.PopCount(refcounts);
            return used;
        }
        for (int i = 0; i < geometry.RefcountBlockEntryCount; i++)
            used += RefcountBlock.Get(block, geometry.RefcountOrder, i) != 0 ? 1 : 0;
        return used;
    }
}
