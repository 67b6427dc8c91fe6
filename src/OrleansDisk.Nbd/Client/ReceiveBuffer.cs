namespace OrleansDisk.Nbd.Client;

/// <summary>What a connection has received and nobody has taken. One caller at a time.</summary>
internal sealed class ReceiveBuffer(Stream stream)
{
    private const int BufferBytes = 16 << 10;

    private readonly byte[] _buffer = new byte[BufferBytes];
    private int _start;
    private int _end;

    public bool IsEmpty => _start == _end;

    /// <summary>Receives until a number of bytes can be looked at; they stay until they are taken.</summary>
    /// <param name="bytes">At most 16 KiB.</param>
    /// <param name="cancellation">Ends waiting.</param>
    /// <exception cref="EndOfStreamException">The server has closed the connection.</exception>
    public async ValueTask<ReadOnlyMemory<byte>> PeekAsync(int bytes, CancellationToken cancellation = default)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(bytes, BufferBytes);
        if (_start + bytes > BufferBytes)
        {
            _buffer.AsSpan(_start.._end).CopyTo(_buffer);
            (_start, _end) = (0, _end - _start);
        }
        while (_end - _start < bytes)
        {
            int received = await stream.ReadAsync(_buffer.AsMemory(_end), cancellation);
            if (received == 0)
                throw new EndOfStreamException();
            _end += received;
        }
        return _buffer.AsMemory(_start, bytes);
    }

    /// <summary>Takes what was looked at.</summary>
    public void Skip(int bytes)
    {
        _start += bytes;
        if (_start == _end)
            (_start, _end) = (0, 0);
    }

    /// <summary>Fills the target, past the buffer for what is not in it.</summary>
    /// <exception cref="EndOfStreamException">The server has closed the connection.</exception>
    public async ValueTask TakeAsync(Memory<byte> target, CancellationToken cancellation = default)
    {
        int buffered = Math.Min(target.Length, _end - _start);
        _buffer.AsSpan(_start, buffered).CopyTo(target.Span);
        Skip(buffered);
        await stream.ReadExactlyAsync(target[buffered..], cancellation);
    }
}
