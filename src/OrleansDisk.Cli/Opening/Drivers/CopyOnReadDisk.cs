using OrleansDisk.Cli.Opening.Blkdebug;
using OrleansDisk.Qcow2.Data;

namespace OrleansDisk.Cli.Opening.Drivers;

/// <summary>The copy-on-read driver: what is read from a backing file is kept in the image.</summary>
/// <param name="below">The image.</param>
/// <param name="clusterBytes">What is copied at least.</param>
/// <param name="blkdebug">Told of each copy, or null.</param>
internal sealed class CopyOnReadDisk(IWritableDisk below, int clusterBytes, BlkdebugRules? blkdebug) : FilterDisk(below)
{
    private const int MaxChunkBytes = 4 << 20;

    public override async ValueTask ReadAsync(long offset, Memory<byte> buffer)
    {
        long end = Math.Min(offset + buffer.Length, VirtualBytes);
        if (end < offset + buffer.Length)
            buffer.Span[(int)Math.Max(end - offset, 0)..].Clear();
        for (long at = offset; at < end;)
        {
            DiskExtent extent = await Below.GetExtentAsync(at, end - at);
            long next = Math.Min(at + extent.Bytes, end);
            if (extent.State != DiskExtentState.Unallocated)
                await Below.ReadAsync(at, buffer[(int)(at - offset)..(int)(next - offset)]);
            else
                next = await CopyAsync(at, next, offset, buffer);
            at = next;
        }
    }

    /// <summary>Reads and keeps the clusters of a range, the first part of it when it is long.</summary>
    /// <returns>Where it ended.</returns>
    private async ValueTask<long> CopyAsync(long from, long to, long offset, Memory<byte> buffer)
    {
        long start = from / clusterBytes * clusterBytes;
        long end = Math.Min((to + clusterBytes - 1) / clusterBytes * clusterBytes, start + Math.Max(MaxChunkBytes, clusterBytes));
        byte[] clusters = GC.AllocateUninitializedArray<byte>((int)(Math.Min(end, VirtualBytes) - start));
        await Below.ReadAsync(start, clusters);
        if (blkdebug is not null)
            await blkdebug.TriggerAsync(BlkdebugEvents.CopyOnReadWrite);
        if (clusters.AsSpan().ContainsAnyExcept((byte)0))
            await Below.WriteAsync(start, clusters);
        else
            await Below.WriteZeroesAsync(start, clusters.Length, mayUnmap: false);
        to = Math.Min(to, end);
        clusters.AsMemory((int)(from - start), (int)(to - from)).CopyTo(buffer[(int)(from - offset)..]);
        return to;
    }
}
