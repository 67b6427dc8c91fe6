using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Testing;

/// <summary>A file in memory, which counts what is read of it.</summary>
public sealed class MemoryBlockFile(byte[] bytes) : IBlockFile
{
    private byte[] _bytes = bytes;

    public byte[] Bytes => _bytes;

    public string Name => "memory";

    public bool IsReadOnly => false;

    public long LengthBytes => _bytes.Length;

    public int FlushCount { get; private set; }

    /// <summary>Called before each write with its offset; may throw.</summary>
    public Action<long>? OnWrite { get; set; }

    public ValueTask ReadAsync(long offset, Memory<byte> buffer)
    {
        TryRead(offset, buffer.Span);
        return ValueTask.CompletedTask;
    }

    public bool TryRead(long offset, Span<byte> buffer)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(offset);
        buffer.Clear();
        if (offset < _bytes.Length)
            _bytes.AsSpan((int)offset, (int)Math.Min(buffer.Length, _bytes.Length - offset)).CopyTo(buffer);
        return true;
    }

    public ValueTask WriteAsync(long offset, ReadOnlyMemory<byte> data)
    {
        Write(offset, data.Span);
        return ValueTask.CompletedTask;
    }

    public void Write(long offset, ReadOnlySpan<byte> data)
    {
        OnWrite?.Invoke(offset);
        if (offset + data.Length > _bytes.Length)
            Array.Resize(ref _bytes, (int)(offset + data.Length));
        data.CopyTo(_bytes.AsSpan((int)offset));
    }

    public async ValueTask WriteAsync(long offset, IReadOnlyList<ReadOnlyMemory<byte>> pieces)
    {
        foreach (ReadOnlyMemory<byte> piece in pieces)
        {
            await WriteAsync(offset, piece);
            offset += piece.Length;
        }
    }

    public ValueTask FlushAsync()
    {
        FlushCount++;
        return ValueTask.CompletedTask;
    }

    public ValueTask<bool> PunchHoleAsync(long offset, long bytes)
    {
        _bytes.AsSpan((int)offset, (int)bytes).Clear();
        return ValueTask.FromResult(true);
    }

    public ValueTask SetLengthAsync(long bytes)
    {
        Array.Resize(ref _bytes, (int)bytes);
        return ValueTask.CompletedTask;
    }

    public FileExtent GetExtent(long offset, long limit) => new(limit - offset, IsData: true);

    public ValueTask DisposeAsync() => ValueTask.CompletedTask;
}
