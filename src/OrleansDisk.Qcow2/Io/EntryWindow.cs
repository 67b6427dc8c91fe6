namespace OrleansDisk.Qcow2.Io;

/// <summary>Walks over a table of entries of unequal length with one buffer.</summary>
/// <param name="file">The image file.</param>
/// <param name="start">Where the table starts.</param>
/// <param name="maxEntryBytes">Longest entry that is looked at as a whole.</param>
internal sealed class EntryWindow(IBlockFile file, long start, int maxEntryBytes)
{
    private readonly byte[] _buffer = new byte[Math.Max(4 * maxEntryBytes, 64 << 10)];
    private long _bufferAt = -1;

    /// <summary>Bytes from the start of the table to the current entry.</summary>
    public long Position { get; private set; }

    /// <summary>At least the longest entry's bytes from the current position on; valid until the next call.</summary>
    public async ValueTask<ReadOnlyMemory<byte>> PeekAsync()
    {
        if (_bufferAt < 0 || Position + maxEntryBytes > _bufferAt + _buffer.Length)
        {
            _bufferAt = Position;
            if (start + Position < file.LengthBytes)
                await file.ReadAsync(start + Position, _buffer);
            else
                _buffer.AsSpan().Clear();
        }
        return _buffer.AsMemory((int)(Position - _bufferAt));
    }

    public void Advance(long bytes) => Position += bytes;
}
