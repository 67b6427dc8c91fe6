using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Qcow2.Data;

namespace OrleansDisk.Cli.Opening.Drivers;

/// <summary>The raw driver with its options offset and size: a part of a disk as a disk of its own.</summary>
internal sealed class RawWindow : FilterDisk
{
    private const int SectorBytes = 512;

    private readonly long _offset;

    /// <param name="below">The disk that it is a part of.</param>
    /// <param name="offset">First byte of the part.</param>
    /// <param name="bytes">Length of the part, or null for the rest.</param>
    /// <exception cref="CommandFailedException">The part is not inside the disk.</exception>
    public RawWindow(IWritableDisk below, long offset, long? bytes)
        : base(below)
    {
        long diskBytes = (below.VirtualBytes + SectorBytes - 1) & ~(SectorBytes - 1L);
        if (offset > diskBytes)
        {
            throw new CommandFailedException(
                $"Offset ({offset}) cannot be greater than size of the containing file ({diskBytes})");
        }
        if (bytes > diskBytes - offset)
        {
            throw new CommandFailedException(
                $"The sum of offset ({offset}) and size ({bytes}) has to be smaller or equal to the  actual size of the containing "
                + $"file ({diskBytes})");
        }
        if (bytes % SectorBytes != 0)
            throw new CommandFailedException("Specified size is not multiple of 512");
        (_offset, VirtualBytes) = (offset, bytes ?? diskBytes - offset);
    }

    public override string Format => "raw";

    public override long VirtualBytes { get; }

    public override ValueTask ReadAsync(long offset, Memory<byte> buffer)
    {
        int inside = (int)Math.Clamp(VirtualBytes - offset, 0, buffer.Length);
        buffer.Span[inside..].Clear();
        return base.ReadAsync(_offset + offset, buffer[..inside]);
    }

    public override ValueTask<DiskExtent> GetExtentAsync(long offset, long bytes) => base.GetExtentAsync(_offset + offset, bytes);

    public override ValueTask WriteAsync(long offset, ReadOnlyMemory<byte> data, bool fua = false) =>
        base.WriteAsync(Inside(offset, data.Length), data, fua);

    public override ValueTask WriteZeroesAsync(long offset, long bytes, bool mayUnmap, bool fua = false) =>
        base.WriteZeroesAsync(Inside(offset, bytes), bytes, mayUnmap, fua);

    public override ValueTask DiscardAsync(long offset, long bytes, bool fua = false) =>
        base.DiscardAsync(Inside(offset, bytes), bytes, fua);

    public override Task ResizeAsync(long virtualBytes) =>
        throw new CommandFailedException("Cannot resize fixed-size raw disks");

    private long Inside(long offset, long bytes)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(offset, VirtualBytes - bytes);
        return _offset + offset;
    }
}
