using OrleansDisk.Abstractions;

namespace OrleansDisk.Client;

/// <summary>A disk as a stream. Its length is the disk's and does not change.</summary>
internal sealed class DiskStream(Disk disk) : Stream
{
    private long _position;

    public override bool CanRead => true;

    public override bool CanSeek => true;

    public override bool CanWrite => !disk.IsReadOnly;

    public override long Length => disk.Bytes;

    public override long Position
    {
        get => _position;
        set
        {
            ArgumentOutOfRangeException.ThrowIfNegative(value);
            _position = value;
        }
    }

    public override async ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default)
    {
        cancellationToken.ThrowIfCancellationRequested();
        int bytes = (int)Math.Clamp(Length - _position, 0, buffer.Length);
        if (bytes == 0)
            return 0;
        long offset = _position;
        await DescribingErrorsAsync(disk.ReadAsync(offset, buffer[..bytes]));
        _position = offset + bytes;
        return bytes;
    }

    public override Task<int> ReadAsync(byte[] buffer, int offset, int count, CancellationToken cancellationToken) =>
        ReadAsync(buffer.AsMemory(offset, count), cancellationToken).AsTask();

    public override int Read(byte[] buffer, int offset, int count) =>
        ReadAsync(buffer, offset, count, CancellationToken.None).GetAwaiter().GetResult();

    public override async ValueTask WriteAsync(ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken = default)
    {
        cancellationToken.ThrowIfCancellationRequested();
        if (!CanWrite)
            throw new NotSupportedException($"disk '{disk.Image}' is open for reading only");
        if (buffer.Length > Length - _position)
            throw new IOException($"{buffer.Length} bytes at {_position} do not fit into disk '{disk.Image}' of {Length} bytes");
        long offset = _position;
        await DescribingErrorsAsync(disk.WriteAsync(offset, buffer));
        _position = offset + buffer.Length;
    }

    public override Task WriteAsync(byte[] buffer, int offset, int count, CancellationToken cancellationToken) =>
        WriteAsync(buffer.AsMemory(offset, count), cancellationToken).AsTask();

    public override void Write(byte[] buffer, int offset, int count) =>
        WriteAsync(buffer, offset, count, CancellationToken.None).GetAwaiter().GetResult();

    /// <summary>Puts everything written on stable storage.</summary>
    public override Task FlushAsync(CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        return DescribingErrorsAsync(disk.FlushAsync());
    }

    public override void Flush() => FlushAsync(CancellationToken.None).GetAwaiter().GetResult();

    public override long Seek(long offset, SeekOrigin origin)
    {
        long start = origin switch
        {
            SeekOrigin.Begin => 0,
            SeekOrigin.Current => _position,
            _ => Length,
        };
        return Position = start + offset;
    }

    public override void SetLength(long value) =>
        throw new NotSupportedException("a disk has a fixed size; DiskClient.ResizeAsync changes it");

    private static async Task DescribingErrorsAsync(Task request)
    {
        try
        {
            await request;
        }
        catch (ImageException e)
        {
            throw new IOException(e.Message, e);
        }
    }
}
