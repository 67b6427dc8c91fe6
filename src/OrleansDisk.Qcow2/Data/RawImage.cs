using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Qcow2.Data;

/// <summary>A raw file as a disk, read only: what lies below an image.</summary>
public sealed class RawImage(IBlockFile file) : IDiskSource
{
    public string FileName => file.Name;

    public string Format => "raw";

    public long VirtualBytes => file.LengthBytes;

    public IDiskSource? Backing => null;

    public ValueTask ReadAsync(long offset, Memory<byte> buffer) => file.ReadAsync(offset, buffer);

    public ValueTask<DiskExtent> GetExtentAsync(long offset, long bytes)
    {
        FileExtent extent = file.GetExtent(offset, offset + bytes);
        DiskExtentState state = extent.IsData ? DiskExtentState.Data : DiskExtentState.Zero;
        return new ValueTask<DiskExtent>(new DiskExtent(extent.Bytes, state, offset));
    }

    public ValueTask DisposeAsync() => file.DisposeAsync();
}
