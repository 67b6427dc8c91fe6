using OrleansDisk.Qcow2.Io;
using OrleansDisk.Simulation.Host;

namespace OrleansDisk.Simulation.Crash;

/// <summary>The file as a crash left it, for who opens it to look: what is written stays with this view.</summary>
internal sealed class CrashView(string name, UnflushedWrites writes, CrashState state) : IBlockFile
{
    private readonly SortedDictionary<long, byte[]> _written = [];
    private long _length = writes.LengthOf(state);

    public string Name => name;

    public bool IsReadOnly { get; init; }

    /// <summary>Where the file begins on the disk.</summary>
    public long Start { get; init; }

    /// <summary>Length of a file that is a part of a disk, or null: all behind its start.</summary>
    public long? Bytes { get; init; }

    /// <summary>Zeros behind the file that count as part of it.</summary>
    public long PaddingBytes { get; init; }

    public long LengthBytes => Bytes ?? _length + PaddingBytes;

    /// <summary>A disk without unflushed writes, or what programs see of it.</summary>
    public static CrashView Of(string name, ByteStore bytes, long paddingBytes = 0) =>
        new(name, new UnflushedWrites(new SimulatedDisk(bytes.Bytes)), new CrashState(0)) { IsReadOnly = true, PaddingBytes = paddingBytes };

    public ValueTask ReadAsync(long offset, Memory<byte> buffer)
    {
        TryRead(offset, buffer.Span);
        return ValueTask.CompletedTask;
    }

    public bool TryRead(long offset, Span<byte> buffer)
    {
        writes.Read(state, offset + Start, buffer);
        foreach ((long start, byte[] data) in _written)
        {
            long from = Math.Max(start, offset);
            long to = Math.Min(start + data.Length, offset + buffer.Length);
            if (from < to)
                data.AsSpan((int)(from - start), (int)(to - from)).CopyTo(buffer[(int)(from - offset)..]);
        }
        return true;
    }

    public void Write(long offset, ReadOnlySpan<byte> data)
    {
        _written[offset] = data.ToArray();
        _length = Math.Max(_length, offset + data.Length);
    }

    public ValueTask WriteAsync(long offset, ReadOnlyMemory<byte> data)
    {
        Write(offset, data.Span);
        return ValueTask.CompletedTask;
    }

    public async ValueTask WriteAsync(long offset, IReadOnlyList<ReadOnlyMemory<byte>> pieces)
    {
        foreach (ReadOnlyMemory<byte> piece in pieces)
        {
            await WriteAsync(offset, piece);
            offset += piece.Length;
        }
    }

    public ValueTask FlushAsync() => ValueTask.CompletedTask;

    public ValueTask<bool> PunchHoleAsync(long offset, long bytes) => new(false);

    public ValueTask SetLengthAsync(long bytes)
    {
        _length = bytes;
        return ValueTask.CompletedTask;
    }

    public FileExtent GetExtent(long offset, long limit) => new(limit - offset, IsData: true);

    public ValueTask DisposeAsync() => ValueTask.CompletedTask;
}
