using OrleansDisk.Cli.Opening.Drivers;
using OrleansDisk.Qcow2.Data;

namespace OrleansDisk.Cli.Opening.Blkdebug;

/// <summary>A disk whose requests fail or stop as rules say: blkdebug on top of an image.</summary>
/// <param name="below">The disk.</param>
/// <param name="rules">What fails, and what stops.</param>
/// <param name="zeroUnit">Zeros are passed on as such in whole units of so many bytes, and what is left as data (opt-write-zero); or 0.</param>
internal sealed class BlkdebugDisk(IWritableDisk below, BlkdebugRules rules, long zeroUnit) : FilterDisk(below)
{
    public override async ValueTask ReadAsync(long offset, Memory<byte> buffer)
    {
        rules.Check(BlkdebugIoTypes.Read, FileName, offset, buffer.Length);
        await base.ReadAsync(offset, buffer);
    }

    public override ValueTask<DiskExtent> GetExtentAsync(long offset, long bytes)
    {
        rules.Check(BlkdebugIoTypes.BlockStatus, FileName, offset, bytes);
        return base.GetExtentAsync(offset, bytes);
    }

    public override async ValueTask WriteAsync(long offset, ReadOnlyMemory<byte> data, bool fua = false)
    {
        await rules.TriggerAsync(BlkdebugEvents.WriteVector);
        rules.Check(BlkdebugIoTypes.Write, FileName, offset, data.Length);
        await base.WriteAsync(offset, data, fua);
        await rules.TriggerAsync(BlkdebugEvents.WriteDone);
    }

    public override async ValueTask WriteZeroesAsync(long offset, long bytes, bool mayUnmap, bool fua = false)
    {
        await rules.TriggerAsync(BlkdebugEvents.WriteZero);
        rules.Check(BlkdebugIoTypes.WriteZeroes, FileName, offset, bytes);
        long end = offset + bytes;
        long head = zeroUnit == 0 || offset % zeroUnit == 0 ? 0 : Math.Min(bytes, zeroUnit - (offset % zeroUnit));
        long tail = zeroUnit == 0 || head == bytes ? 0 : end % zeroUnit;
        if (head > 0)
            await base.WriteAsync(offset, new byte[head], fua);
        if (bytes > head + tail)
            await base.WriteZeroesAsync(offset + head, bytes - head - tail, mayUnmap, fua);
        if (tail > 0)
            await base.WriteAsync(end - tail, new byte[tail], fua);
        await rules.TriggerAsync(BlkdebugEvents.WriteDone);
    }

    public override async ValueTask DiscardAsync(long offset, long bytes, bool fua = false)
    {
        rules.Check(BlkdebugIoTypes.Discard, FileName, offset, bytes);
        await base.DiscardAsync(offset, bytes, fua);
    }

    public override async ValueTask FlushAsync()
    {
        rules.Check(BlkdebugIoTypes.Flush, FileName, 0, 0);
        await base.FlushAsync();
    }
}
