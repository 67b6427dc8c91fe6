using OrleansDisk.Cli.Opening.Drivers;
using OrleansDisk.Qcow2.Data;

namespace OrleansDisk.Cli.Opening.Blkdebug;

/// <summary>A disk whose requests fail or stop as rules say: blkdebug on top of an image.</summary>
internal sealed class BlkdebugDisk(IWritableDisk below, BlkdebugRules rules) : FilterDisk(below)
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
        await base.WriteZeroesAsync(offset, bytes, mayUnmap, fua);
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
