using OrleansDisk.Qcow2.Data;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Cli.Opening.Drivers;

/// <summary>A disk as the file of an image: an image inside of an image, or at the other end of a connection.</summary>
internal sealed class DiskFile(IWritableDisk disk) : IBlockFile
{
    public IWritableDisk Disk => disk;

    public string Name => disk.FileName;

    public bool IsReadOnly => disk.IsReadOnly;

    public long LengthBytes => disk.VirtualBytes;

    public ValueTask ReadAsync(long offset, Memory<byte> buffer)
    {
        int inside = (int)Math.Clamp(LengthBytes - offset, 0, buffer.Length);
        buffer.Span[inside..].Clear();
        return disk.ReadAsync(offset, buffer[..inside]);
    }

    public bool TryRead(long offset, Span<byte> buffer) => false;

    /// <summary>Not supported: a disk below is changed in turns, and no lease is given out over it.</summary>
    public void Write(long offset, ReadOnlySpan<byte> data) =>
        throw new NotSupportedException($"'{Name}' can't be written outside a turn");

    public async ValueTask WriteAsync(long offset, ReadOnlyMemory<byte> data)
    {
        if (offset + data.Length > LengthBytes)
            await disk.ResizeAsync(offset + data.Length);
        await disk.WriteAsync(offset, data);
    }

    public async ValueTask WriteAsync(long offset, IReadOnlyList<ReadOnlyMemory<byte>> pieces)
    {
        foreach (ReadOnlyMemory<byte> piece in pieces)
        {
            await WriteAsync(offset, piece);
            offset += piece.Length;
        }
    }

    public ValueTask FlushAsync() => disk.FlushAsync();

    public async ValueTask<bool> PunchHoleAsync(long offset, long bytes)
    {
        long inside = Math.Clamp(LengthBytes - offset, 0, bytes);
        await disk.WriteZeroesAsync(offset, inside, mayUnmap: true);
        return true;
    }

    public ValueTask SetLengthAsync(long bytes) => new(disk.ResizeAsync(bytes));

    public FileExtent GetExtent(long offset, long limit) => new(limit - offset, IsData: true);

    public ValueTask DisposeAsync() => disk.DisposeAsync();
}
