using OrleansDisk.Nbd.Client;
using OrleansDisk.Qcow2.Data;

namespace OrleansDisk.Cli.Opening.Drivers;

/// <summary>An export of an NBD server as a disk. The connection takes one request at a time.</summary>
/// <param name="client">The connection, owned by the disk.</param>
/// <param name="name">What messages call the disk.</param>
/// <param name="isReadOnly">Whether the disk is only read.</param>
internal sealed class NbdDisk(NbdClient client, string name, bool isReadOnly) : IWritableDisk
{
    /// <summary>Longest range of one request that has no data.</summary>
    private const long MaxRangeBytes = 1 << 30;

    /// <summary>Bits of base:allocation (NBD protocol, "Metadata contexts").</summary>
    private const uint HoleFlag = 1, ZeroFlag = 2;

    private readonly SemaphoreSlim _turn = new(1);

    public string FileName => name;

    public string Format => "nbd";

    public long VirtualBytes => client.Bytes;

    public IDiskSource? Backing => null;

    public bool IsReadOnly => isReadOnly || client.IsReadOnly;

    public ValueTask ReadAsync(long offset, Memory<byte> buffer) => RunAsync(() => client.ReadAsync(offset, buffer));

    /// <summary>What the server says of the range; all is data where it can't tell.</summary>
    public async ValueTask<DiskExtent> GetExtentAsync(long offset, long bytes)
    {
        if (!client.HasContext)
            return new DiskExtent(bytes, DiskExtentState.Data, offset);
        NbdExtent extent = default;
        await RunAsync(async () => extent = await client.GetExtentAsync(offset, (uint)Math.Min(bytes, MaxRangeBytes)));
        (bool isHole, bool isZero) = ((extent.Flags & HoleFlag) != 0, (extent.Flags & ZeroFlag) != 0);
        DiskExtentState state = (isHole, isZero) switch
        {
            (true, true) => DiskExtentState.Zero,
            (true, false) => DiskExtentState.Unknown,
            (false, true) => DiskExtentState.ZeroAllocated,
            (false, false) => DiskExtentState.Data,
        };
        return new DiskExtent(extent.Bytes, state, state == DiskExtentState.Unknown ? null : offset);
    }

    public ValueTask WriteAsync(long offset, ReadOnlyMemory<byte> data, bool fua = false) =>
        RunAsync(() => client.WriteAsync(offset, data, fua));

    public ValueTask WriteZeroesAsync(long offset, long bytes, bool mayUnmap, bool fua = false) =>
        InPartsAsync(offset, bytes, fua, (at, length) => client.WriteZeroesAsync(at, length));

    public ValueTask DiscardAsync(long offset, long bytes, bool fua = false) =>
        InPartsAsync(offset, bytes, fua, (at, length) => client.TrimAsync(at, length));

    public ValueTask FlushAsync() => IsReadOnly ? ValueTask.CompletedTask : RunAsync(() => client.FlushAsync());

    public Task ResizeAsync(long virtualBytes) => throw new NotSupportedException($"'{name}' is an export, which keeps its size");

    public async ValueTask DisposeAsync()
    {
        await client.DisposeAsync();
        _turn.Dispose();
    }

    private async ValueTask InPartsAsync(long offset, long bytes, bool fua, Func<long, uint, Task> request)
    {
        for (long done = 0; done < bytes; done += MaxRangeBytes)
        {
            long at = offset + done;
            await RunAsync(() => request(at, (uint)Math.Min(offset + bytes - at, MaxRangeBytes)));
        }
        if (fua)
            await FlushAsync();
    }

    private async ValueTask RunAsync(Func<Task> request)
    {
        await _turn.WaitAsync();
        try
        {
            await request();
        }
        finally
        {
            _turn.Release();
        }
    }
}
