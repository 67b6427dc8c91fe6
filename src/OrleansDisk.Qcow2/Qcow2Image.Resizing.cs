using OrleansDisk.Qcow2.Concurrency;
using OrleansDisk.Qcow2.Snapshots;

namespace OrleansDisk.Qcow2;

/// <content>The size of the disk.</content>
public sealed partial class Qcow2Image
{
    private const int SectorBytes = 512;

    public Task ResizeAsync(long virtualBytes) => ResizeAsync(virtualBytes, Preallocation.Off);

    /// <summary>
    /// Makes the disk larger or smaller. What is new reads as zeros; what is cut off is gone, and its space in the file
    /// with it. Requests and sessions wait meanwhile.
    /// </summary>
    /// <param name="virtualBytes">The new size, rounded up to whole sectors.</param>
    /// <param name="preallocation">What the new part has allocated; off when the disk becomes smaller.</param>
    /// <exception cref="Qcow2Exception">A version 2 image has snapshots, or a smaller disk was to be preallocated.</exception>
    /// <exception cref="NoSpaceException">The file can't grow.</exception>
    public async Task ResizeAsync(long virtualBytes, Preallocation preallocation)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(virtualBytes);
        if (virtualBytes > long.MaxValue - SectorBytes)
            throw new NoSpaceException($"'{FileName}' can't grow to {virtualBytes} bytes: a disk has less than 8 EiB");
        virtualBytes = (virtualBytes + SectorBytes - 1) & ~(SectorBytes - 1L);
        using RequestGate.Ticket ticket = await _metadata.Gate.EnterExclusiveAsync();
        await GuardAsync(() =>
        {
            ThrowIfUnwritable(0, 0);
            return ValueTask.CompletedTask;
        });
        if (Header is { Version: < 3, SnapshotCount: > 0 })
            throw new Qcow2Exception("Can't resize a v2 image which has snapshots");
        if (virtualBytes < VirtualBytes && preallocation != Preallocation.Off)
            throw new Qcow2Exception("Preallocation can't be used for shrinking an image");
        // VM state lies behind the disk: it would become a part of it, or be looked for elsewhere.
        await GuardAsync(() => new ValueTask(new ImageSnapshots(_metadata).DropVmStateAsync()));
        await GuardAsync(() => ResizingBitmapsAsync(virtualBytes, () => virtualBytes < VirtualBytes
            ? _resize.ShrinkAsync(virtualBytes) : _resize.GrowAsync(virtualBytes, preallocation)));
    }
}
