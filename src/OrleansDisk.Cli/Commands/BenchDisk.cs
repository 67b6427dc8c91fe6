using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Cli.Commands;

/// <summary>What odisk bench sends its requests to.</summary>
internal interface IBenchDisk : IAsyncDisposable
{
    /// <summary>Size of the disk in bytes.</summary>
    long Bytes { get; }

    ValueTask ReadAsync(long offset, Memory<byte> buffer);

    ValueTask WriteAsync(long offset, ReadOnlyMemory<byte> data, bool fua);

    ValueTask FlushAsync();
}

/// <summary>An image, in its turns.</summary>
internal sealed class Qcow2BenchDisk(Qcow2Image image) : IBenchDisk
{
    public long Bytes => image.VirtualBytes;

    public ValueTask ReadAsync(long offset, Memory<byte> buffer) => image.ReadAsync(offset, buffer);

    public ValueTask WriteAsync(long offset, ReadOnlyMemory<byte> data, bool fua) => image.WriteAsync(offset, data, fua);

    public ValueTask FlushAsync() => image.FlushAsync();

    public ValueTask DisposeAsync() => image.DisposeAsync();
}

/// <summary>A raw file, for comparison.</summary>
internal sealed class RawBenchDisk(IBlockFile file) : IBenchDisk
{
    private const int SectorBytes = 512;

    public long Bytes { get; } = (file.LengthBytes + SectorBytes - 1) & ~(SectorBytes - 1L);

    public ValueTask ReadAsync(long offset, Memory<byte> buffer) => file.ReadAsync(offset, buffer);

    public async ValueTask WriteAsync(long offset, ReadOnlyMemory<byte> data, bool fua)
    {
        await file.WriteAsync(offset, data);
        if (fua)
            await file.FlushAsync();
    }

    public ValueTask FlushAsync() => file.FlushAsync();

    public ValueTask DisposeAsync() => file.DisposeAsync();
}
