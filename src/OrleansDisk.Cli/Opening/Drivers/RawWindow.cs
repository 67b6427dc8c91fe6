using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Qcow2.Data;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Cli.Opening.Drivers;

/// <summary>The raw driver with its options offset and size: a part of a disk as a disk of its own.</summary>
internal sealed class RawWindow : FilterDisk
{
    private const int SectorBytes = 512;

    private readonly long _offset;
    private readonly IReadOnlyList<MapLayer> _layers;

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
        if (bytes is { } given && given % SectorBytes != 0)
            throw new CommandFailedException("Specified size is not multiple of 512");
        (_offset, VirtualBytes) = (offset, bytes ?? diskBytes - offset);
        _layers = MapOperation.LayersOf(below);
    }

    public override string Format => "raw";

    public override IDiskSource? Backing => null;

    public override long VirtualBytes { get; }

    public override ValueTask ReadAsync(long offset, Memory<byte> buffer)
    {
        int inside = (int)Math.Clamp(VirtualBytes - offset, 0, buffer.Length);
        buffer.Span[inside..].Clear();
        return base.ReadAsync(_offset + offset, buffer[..inside]);
    }

    /// <summary>What the disk says, its chain included: the layers below do not know of the part.</summary>
    public override async ValueTask<DiskExtent> GetExtentAsync(long offset, long bytes)
    {
        await foreach (MapExtent extent in MapOperation.WalkAsync(_layers, _offset + offset, bytes))
        {
            DiskExtentState state = (extent.IsData, extent.IsZero) switch
            {
                (true, false) => DiskExtentState.Data,
                (true, true) => DiskExtentState.DataOfZeros,
                (false, true) => extent.IsAllocated ? DiskExtentState.ZeroAllocated : DiskExtentState.Zero,
                (false, false) => DiskExtentState.Unknown,
            };
            return new DiskExtent(extent.Bytes, state, extent.HostOffset);
        }
        return new DiskExtent(bytes, DiskExtentState.Zero, null); // past the end of what it is a part of
    }

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
