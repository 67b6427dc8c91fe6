using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Interop.Tests;

/// <summary>An operation on a file, for those who decide whether it fails.</summary>
public enum FileOperation
{
    Read,
    Write,
    Flush,
    PunchHole,
    SetLength,
}

/// <summary>
/// A sparse file in memory. Operations may be made to take a number of turns of the scheduler, so that those under way
/// overtake each other, and to fail; each happens in one moment, as it does for whole sectors on a disk.
/// </summary>
internal sealed class MemoryFile : IBlockFile
{
    private const int PageBytes = 4096;
    private const long MaxBytes = 1L << 60;
    private readonly Dictionary<long, byte[]> _pages = [];

    public string Name => "memory";

    public bool IsReadOnly { get; init; }

    public long LengthBytes { get; private set; }

    /// <summary>Turns of the scheduler that the next operation takes.</summary>
    public Func<int> Turns { get; init; } = () => 0;

    /// <summary>The error number with which an operation fails, or 0. A failed write has written its first half.</summary>
    public Func<FileOperation, long, int> Fault { get; set; } = (_, _) => 0;

    public static MemoryFile Load(byte[] bytes, MemoryFile file)
    {
        file.Write(0, bytes);
        return file;
    }

    /// <summary>The file as it is now; only for small ones.</summary>
    public byte[] ToArray()
    {
        byte[] bytes = new byte[LengthBytes];
        Read(0, bytes);
        return bytes;
    }

    public async ValueTask ReadAsync(long offset, Memory<byte> buffer)
    {
        await BeginAsync(FileOperation.Read, offset, buffer.Length);
        Read(offset, buffer.Span);
    }

    public bool TryRead(long offset, Span<byte> buffer)
    {
        ThrowIfFaulty(FileOperation.Read, offset, buffer.Length);
        Read(offset, buffer);
        return true;
    }

    void IBlockFile.Write(long offset, ReadOnlySpan<byte> data)
    {
        ThrowIfFaulty(FileOperation.Write, offset, data.Length);
        Write(offset, data);
    }

    public async ValueTask WriteAsync(long offset, ReadOnlyMemory<byte> data)
    {
        try
        {
            await BeginAsync(FileOperation.Write, offset, data.Length);
        }
        catch (BlockFileException) when (offset >= 0 && offset < MaxBytes)
        {
            Write(offset, data.Span[..(data.Length / 2)]);
            throw;
        }
        Write(offset, data.Span);
    }

    public ValueTask WriteAsync(long offset, IReadOnlyList<ReadOnlyMemory<byte>> pieces)
    {
        byte[] whole = new byte[pieces.Sum(piece => piece.Length)];
        int at = 0;
        foreach (ReadOnlyMemory<byte> piece in pieces)
        {
            piece.CopyTo(whole.AsMemory(at));
            at += piece.Length;
        }
        return WriteAsync(offset, whole);
    }

    public ValueTask FlushAsync() => BeginAsync(FileOperation.Flush, 0, 0);

    public async ValueTask<bool> PunchHoleAsync(long offset, long bytes)
    {
        await BeginAsync(FileOperation.PunchHole, offset, bytes);
        for (long done = 0; done < Math.Min(bytes, LengthBytes - offset); done += PageBytes)
        {
            long count = Math.Min(PageBytes, Math.Min(bytes, LengthBytes - offset) - done);
            Write(offset + done, new byte[count]);
        }
        return true;
    }

    public async ValueTask SetLengthAsync(long bytes)
    {
        await BeginAsync(FileOperation.SetLength, bytes, 0);
        LengthBytes = bytes;
    }

    public FileExtent GetExtent(long offset, long limit) => new(limit - offset, IsData: true);

    public ValueTask DisposeAsync() => ValueTask.CompletedTask;

    private async ValueTask BeginAsync(FileOperation operation, long offset, long bytes)
    {
        for (int turns = Turns(); turns > 0; turns--)
            await Task.Yield();
        ThrowIfFaulty(operation, offset, bytes);
    }

    private void ThrowIfFaulty(FileOperation operation, long offset, long bytes)
    {
        const int invalidArgument = 22;
        int errorNumber = offset < 0 || offset > MaxBytes - bytes ? invalidArgument : Fault(operation, offset);
        if (errorNumber != 0)
            throw new BlockFileException($"{operation}", Name, errorNumber, $"error {errorNumber}");
    }

    private void Read(long offset, Span<byte> buffer)
    {
        while (buffer.Length > 0)
        {
            int inPage = (int)(offset % PageBytes);
            int count = Math.Min(PageBytes - inPage, buffer.Length);
            if (_pages.TryGetValue(offset / PageBytes, out byte[]? page))
                page.AsSpan(inPage, count).CopyTo(buffer);
            else
                buffer[..count].Clear();
            offset += count;
            buffer = buffer[count..];
        }
    }

    private void Write(long offset, ReadOnlySpan<byte> data)
    {
        LengthBytes = Math.Max(LengthBytes, offset + data.Length);
        while (data.Length > 0)
        {
            int inPage = (int)(offset % PageBytes);
            int count = Math.Min(PageBytes - inPage, data.Length);
            if (!_pages.TryGetValue(offset / PageBytes, out byte[]? page))
                _pages.Add(offset / PageBytes, page = new byte[PageBytes]);
            data[..count].CopyTo(page.AsSpan(inPage));
            offset += count;
            data = data[count..];
        }
    }
}
