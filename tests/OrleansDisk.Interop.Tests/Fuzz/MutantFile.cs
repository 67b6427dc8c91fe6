using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Interop.Tests.Fuzz;

/// <summary>
/// A file that starts as the bytes of a mutant, which many files share, and keeps what is written beside them. It refuses
/// what no disk has room for, and ends who asks for more than any operation on a small image needs.
/// </summary>
internal sealed class MutantFile(string name, byte[] start, bool isReadOnly) : IBlockFile
{
    private const int PageBytes = 4096;
    private const long MaxOffset = 1L << 50;
    private const int NoSpace = 28;
    private const int FileTooBig = 27;
    private const int MaxPageCount = (64 << 20) / PageBytes;

    /// <summary>Calls that one pass over a mutant may make; far above what a sound image of this size takes.</summary>
    private const int MaxCalls = 400_000;

    private const long MaxReadBytes = 4L << 30;
    private const int CallsPerMeasurement = 64;
    private readonly Dictionary<long, byte[]> _pages = [];
    private int _calls;
    private long _readBytes;

    /// <summary>What the process may have in use while a mutant is worked on.</summary>
    public static long MemoryLimitBytes { get; set; } = long.MaxValue;

    public string Name => name;

    public bool IsReadOnly => isReadOnly;

    public long LengthBytes { get; private set; } = start.Length;

    public bool TryRead(long offset, Span<byte> buffer)
    {
        CountCall(offset);
        _readBytes += buffer.Length;
        Assert.True(_readBytes < MaxReadBytes, "the pass reads without end");
        Read(offset, buffer);
        return true;
    }

    public ValueTask ReadAsync(long offset, Memory<byte> buffer)
    {
        TryRead(offset, buffer.Span);
        return ValueTask.CompletedTask;
    }

    public void Write(long offset, ReadOnlySpan<byte> data)
    {
        CountCall(offset);
        Assert.False(isReadOnly, "a file that is open for reading was written");
        Require(offset, data.Length);
        Store(offset, data);
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

    public ValueTask FlushAsync()
    {
        CountCall(0);
        return ValueTask.CompletedTask;
    }

    public ValueTask<bool> PunchHoleAsync(long offset, long bytes)
    {
        CountCall(offset);
        Assert.False(isReadOnly, "a hole was punched into a file that is open for reading");
        long end = Math.Min(offset + bytes, LengthBytes);
        for (long at = offset; at < end; at += PageBytes)
            Store(at, new byte[Math.Min(PageBytes, end - at)]);
        return ValueTask.FromResult(true);
    }

    public ValueTask SetLengthAsync(long bytes)
    {
        CountCall(bytes);
        Require(bytes, 0);
        LengthBytes = bytes;
        return ValueTask.CompletedTask;
    }

    public FileExtent GetExtent(long offset, long limit)
    {
        CountCall(offset);
        return new FileExtent(limit - offset, IsData: true);
    }

    public ValueTask DisposeAsync() => ValueTask.CompletedTask;

    /// <summary>Bytes of the file as they are now; what lies past its end is zeros.</summary>
    public byte[] Peek(long offset, int count)
    {
        byte[] bytes = new byte[count];
        Read(offset, bytes);
        return bytes;
    }

    private void CountCall(long offset)
    {
        Assert.True(offset >= 0, $"the file is asked for a byte at {offset}");
        Assert.True(++_calls < MaxCalls, "the pass goes on without end");
        if (_calls % CallsPerMeasurement != 1 || GC.GetTotalMemory(forceFullCollection: false) < MemoryLimitBytes)
            return;
        long inUse = GC.GetTotalMemory(forceFullCollection: true);
        Assert.True(inUse < MemoryLimitBytes, $"{inUse >> 20} MiB are in use");
    }

    private void Require(long offset, long bytes)
    {
        if (offset > MaxOffset - bytes)
            throw new BlockFileException("writing", name, FileTooBig, "File too large");
        if (_pages.Count > MaxPageCount)
            throw new BlockFileException("writing", name, NoSpace, "No space left on device");
    }

    private void Read(long offset, Span<byte> buffer)
    {
        while (buffer.Length > 0)
        {
            int inPage = (int)(offset % PageBytes);
            Span<byte> part = buffer[..Math.Min(PageBytes - inPage, buffer.Length)];
            if (offset >= LengthBytes)
                part.Clear();
            else if (_pages.TryGetValue(offset / PageBytes, out byte[]? page))
                page.AsSpan(inPage, part.Length).CopyTo(part);
            else
                ReadStart(offset, part);
            offset += part.Length;
            buffer = buffer[part.Length..];
        }
    }

    private void ReadStart(long offset, Span<byte> part)
    {
        int inside = (int)Math.Clamp(start.Length - offset, 0, part.Length);
        if (inside > 0)
            start.AsSpan((int)offset, inside).CopyTo(part);
        part[inside..].Clear();
    }

    private void Store(long offset, ReadOnlySpan<byte> data)
    {
        while (data.Length > 0)
        {
            int inPage = (int)(offset % PageBytes);
            ReadOnlySpan<byte> part = data[..Math.Min(PageBytes - inPage, data.Length)];
            if (!_pages.TryGetValue(offset / PageBytes, out byte[]? page))
            {
                page = new byte[PageBytes];
                ReadStart(offset - inPage, page);
                _pages.Add(offset / PageBytes, page);
            }
            part.CopyTo(page.AsSpan(inPage));
            offset += part.Length;
            data = data[part.Length..];
            LengthBytes = Math.Max(LengthBytes, offset);
        }
    }
}
