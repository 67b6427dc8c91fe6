using OrleansDisk.Qcow2.Data;

namespace OrleansDisk.Cli.Opening.Drivers;

/// <summary>
/// A disk on top of one that takes whole blocks only. What begins or ends inside a block is read first, and written with the whole of
/// it; meanwhile nothing else is written, so that no old bytes come back.
/// </summary>
/// <param name="below">The other disk, owned by this one.</param>
/// <param name="blockBytes">Its block; a power of two.</param>
internal sealed class WholeBlocksDisk(IWritableDisk below, int blockBytes) : FilterDisk(below)
{
    private readonly SemaphoreSlim _turn = new(1);
    private readonly Lock _gate = new();
    private int _sharingCount;
    private TaskCompletionSource? _nobodyShares;

    public override async ValueTask ReadAsync(long offset, Memory<byte> buffer)
    {
        if (IsWhole(offset, buffer.Length))
        {
            await base.ReadAsync(offset, buffer);
            return;
        }
        (long start, long end) = Covering(offset, buffer.Length);
        byte[] blocks = new byte[end - start];
        await base.ReadAsync(start, blocks);
        int inside = (int)Math.Clamp(end - offset, 0, buffer.Length);
        blocks.AsMemory((int)(offset - start), inside).CopyTo(buffer);
        buffer.Span[inside..].Clear(); // past the end of the disk
    }

    public override async ValueTask<DiskExtent> GetExtentAsync(long offset, long bytes)
    {
        (long start, long end) = Covering(offset, bytes);
        DiskExtent extent = await base.GetExtentAsync(start, end - start);
        long before = offset - start;
        return extent with { Bytes = Math.Min(bytes, extent.Bytes - before), HostOffset = extent.HostOffset + before };
    }

    public override ValueTask WriteAsync(long offset, ReadOnlyMemory<byte> data, bool fua = false) => IsWhole(offset, data.Length)
        ? SharingAsync(() => base.WriteAsync(offset, data, fua))
        : AloneAsync(() => PatchAsync(offset, data.Length, blocks => data.CopyTo(blocks), fua));

    public override ValueTask WriteZeroesAsync(long offset, long bytes, bool mayUnmap, bool fua = false)
    {
        if (IsWhole(offset, bytes))
            return SharingAsync(() => base.WriteZeroesAsync(offset, bytes, mayUnmap, fua));
        (long first, long last) = Inner(offset, offset + bytes);
        return AloneAsync(async () =>
        {
            if (first >= last)
            {
                await PatchAsync(offset, (int)bytes, blocks => blocks.Span.Clear(), fua);
                return;
            }
            await PatchAsync(offset, (int)(first - offset), blocks => blocks.Span.Clear(), fua);
            await base.WriteZeroesAsync(first, last - first, mayUnmap, fua);
            await PatchAsync(last, (int)(offset + bytes - last), blocks => blocks.Span.Clear(), fua);
        });
    }

    /// <summary>Gives up the blocks that are whole in the range.</summary>
    public override ValueTask DiscardAsync(long offset, long bytes, bool fua = false)
    {
        (long first, long last) = Inner(offset, offset + bytes);
        return first < last ? SharingAsync(() => base.DiscardAsync(first, last - first, fua)) : ValueTask.CompletedTask;
    }

    public override async ValueTask DisposeAsync()
    {
        await base.DisposeAsync();
        _turn.Dispose();
    }

    private bool IsWhole(long offset, long bytes) => ((offset | bytes) & (blockBytes - 1)) == 0;

    private (long Start, long End) Covering(long offset, long bytes) => (offset & -blockBytes,
        Math.Max(offset & -blockBytes, Math.Min(VirtualBytes, (offset + bytes + blockBytes - 1) & -blockBytes)));

    private (long First, long Last) Inner(long start, long end) => ((start + blockBytes - 1) & -blockBytes, end & -blockBytes);

    /// <summary>Reads the blocks around a range, changes the range and writes them; alone.</summary>
    private async ValueTask PatchAsync(long offset, int bytes, Action<Memory<byte>> change, bool fua)
    {
        if (bytes == 0)
            return;
        (long start, long end) = Covering(offset, bytes);
        byte[] blocks = new byte[end - start];
        await base.ReadAsync(start, blocks);
        change(blocks.AsMemory((int)(offset - start), bytes));
        await base.WriteAsync(start, blocks, fua);
    }

    private async ValueTask SharingAsync(Func<ValueTask> work)
    {
        await _turn.WaitAsync();
        lock (_gate)
            _sharingCount++;
        _turn.Release();
        try
        {
            await work();
        }
        finally
        {
            lock (_gate)
            {
                if (--_sharingCount == 0)
                    _nobodyShares?.TrySetResult();
            }
        }
    }

    private async ValueTask AloneAsync(Func<ValueTask> work)
    {
        await _turn.WaitAsync();
        try
        {
            var idle = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            lock (_gate)
            {
                _nobodyShares = idle;
                if (_sharingCount == 0)
                    idle.SetResult();
            }
            await idle.Task;
            await work();
        }
        finally
        {
            _turn.Release();
        }
    }
}
