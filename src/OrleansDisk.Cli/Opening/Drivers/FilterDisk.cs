using OrleansDisk.Qcow2.Data;

namespace OrleansDisk.Cli.Opening.Drivers;

/// <summary>A disk on top of another one, which it passes everything on to; what differs is overridden.</summary>
/// <param name="below">The other disk, owned by this one.</param>
internal abstract class FilterDisk(IWritableDisk below) : IWritableDisk
{
    protected IWritableDisk Below => below;

    public string FileName => below.FileName;

    public virtual string Format => below.Format;

    public virtual long VirtualBytes => below.VirtualBytes;

    public virtual IDiskSource? Backing => below.Backing;

    public bool IsReadOnly => below.IsReadOnly;

    public virtual ValueTask ReadAsync(long offset, Memory<byte> buffer) => below.ReadAsync(offset, buffer);

    public virtual ValueTask<DiskExtent> GetExtentAsync(long offset, long bytes) => below.GetExtentAsync(offset, bytes);

    public virtual ValueTask WriteAsync(long offset, ReadOnlyMemory<byte> data, bool fua = false) => below.WriteAsync(offset, data, fua);

    public virtual ValueTask WriteZeroesAsync(long offset, long bytes, bool mayUnmap, bool fua = false) =>
        below.WriteZeroesAsync(offset, bytes, mayUnmap, fua);

    public virtual ValueTask DiscardAsync(long offset, long bytes, bool fua = false) => below.DiscardAsync(offset, bytes, fua);

    public virtual ValueTask FlushAsync() => below.FlushAsync();

    public virtual Task ResizeAsync(long virtualBytes) => below.ResizeAsync(virtualBytes);

    public virtual ValueTask DisposeAsync() => below.DisposeAsync();
}
