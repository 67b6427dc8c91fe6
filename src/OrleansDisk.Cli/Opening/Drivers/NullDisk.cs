using OrleansDisk.Qcow2.Data;

namespace OrleansDisk.Cli.Opening.Drivers;

/// <summary>The null-co driver: reads as zeros, forgets what is written.</summary>
internal sealed class NullDisk(long virtualBytes, bool isReadOnly) : IWritableDisk
{
    public const long DefaultBytes = 1L << 30;

    public string FileName => "null-co://";

    public string Format => "null-co";

    public long VirtualBytes { get; private set; } = virtualBytes;

    public IDiskSource? Backing => null;

    public bool IsReadOnly => isReadOnly;

    public ValueTask ReadAsync(long offset, Memory<byte> buffer)
    {
        buffer.Span.Clear();
        return ValueTask.CompletedTask;
    }

    public ValueTask<DiskExtent> GetExtentAsync(long offset, long bytes) =>
        new(new DiskExtent(bytes, DiskExtentState.Zero, null));

    public ValueTask WriteAsync(long offset, ReadOnlyMemory<byte> data, bool fua = false) => ValueTask.CompletedTask;

    public ValueTask WriteZeroesAsync(long offset, long bytes, bool mayUnmap, bool fua = false) => ValueTask.CompletedTask;

    public ValueTask DiscardAsync(long offset, long bytes, bool fua = false) => ValueTask.CompletedTask;

    public ValueTask FlushAsync() => ValueTask.CompletedTask;

    public Task ResizeAsync(long virtualBytes)
    {
        VirtualBytes = virtualBytes;
        return Task.CompletedTask;
    }

    public ValueTask DisposeAsync() => ValueTask.CompletedTask;
}
