using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Qcow2.Check;

/// <summary>
/// Reads a table window by window into one buffer, so that its stated length costs no memory. What lies past the end
/// of the file is not read: a reader skips it, as all of it is zeros.
/// </summary>
internal sealed class TableReader(IBlockFile file)
{
    private const int WindowBytes = 64 << 10;

    private readonly byte[] _buffer = new byte[WindowBytes];

    /// <summary>Bytes of [offset, offset + bytes) that the file can hold, rounded up to a whole entry of 8 or 16 bytes.</summary>
    public long ReadableBytes(long offset, long bytes)
    {
        if (offset >= file.LengthBytes)
            return 0;
        return Math.Min(bytes, (file.LengthBytes - offset + 15) & ~15L);
    }

    /// <summary>The next window, at most <paramref name="bytes"/> long; valid until the next call.</summary>
    public async ValueTask<Memory<byte>> ReadAsync(long offset, long bytes)
    {
        Memory<byte> window = _buffer.AsMemory(0, (int)Math.Min(bytes, WindowBytes));
        await file.ReadAsync(offset, window);
        return window;
    }
}
