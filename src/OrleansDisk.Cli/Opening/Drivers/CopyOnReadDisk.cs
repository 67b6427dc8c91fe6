using OrleansDisk.Cli.Opening.Blkdebug;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Data;

namespace OrleansDisk.Cli.Opening.Drivers;

/// <summary>The copy-on-read driver: what is read from a backing file is kept in the image.</summary>
/// <param name="below">The image.</param>
/// <param name="blkdebug">Told of each copy, or null.</param>
internal sealed class CopyOnReadDisk(IWritableDisk below, BlkdebugRules? blkdebug) : FilterDisk(below)
{
    private const int SectorBytes = 512;

    public override async ValueTask ReadAsync(long offset, Memory<byte> buffer)
    {
        long end = Math.Min(offset + buffer.Length, VirtualBytes);
        int granularity = Below is Qcow2Image image ? image.Header.Geometry.ClusterBytes : SectorBytes;
        for (long at = offset / granularity * granularity; at < end;)
        {
            DiskExtent extent = await Below.GetExtentAsync(at, end - at);
            if (extent.State == DiskExtentState.Unallocated)
                await CopyAsync(at, Math.Min((at + extent.Bytes + granularity - 1) / granularity * granularity, VirtualBytes));
            at += extent.Bytes;
        }
        await base.ReadAsync(offset, buffer);
    }

    private async ValueTask CopyAsync(long start, long end)
    {
        byte[] chunk = new byte[(int)Math.Min(end - start, 1 << 20)];
        for (long at = start; at < end; at += chunk.Length)
        {
            Memory<byte> part = chunk.AsMemory(0, (int)Math.Min(chunk.Length, end - at));
            await Below.ReadAsync(at, part);
            if (blkdebug is not null)
                await blkdebug.TriggerAsync(BlkdebugEvents.CopyOnReadWrite);
            if (part.Span.ContainsAnyExcept((byte)0))
                await Below.WriteAsync(at, part);
            else
                await Below.WriteZeroesAsync(at, part.Length, mayUnmap: false);
        }
    }
}
