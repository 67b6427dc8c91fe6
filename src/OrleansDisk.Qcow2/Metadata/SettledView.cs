using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Qcow2.Metadata;

/// <summary>The view of the metadata that someone reads has come to its end: the image as a whole is about to change.</summary>
internal sealed class ViewEndedException() : Exception("the image changes as a whole");

/// <summary>
/// An image's metadata as it was when everything had been written back, while guest I/O goes on. What is about to be written
/// over is kept first (<see cref="KeepAsync"/>), and no freed cluster is used again as long as the view is held; so a reader
/// sees every table as it was. Guest data is not kept. Runs on the image's scheduler, and gives way to others before each read.
/// </summary>
internal sealed class SettledView(IBlockFile file) : IBlockFile
{
    private const int SectorBytes = 512;

    private readonly Dictionary<long, byte[]> _kept = [];
    private readonly long _lengthBytes = file.LengthBytes;
    private Exception? _end;
    private int _readCount;
    private TaskCompletionSource? _idle;

    public string Name => file.Name;

    public bool IsReadOnly => true;

    public long LengthBytes => _lengthBytes;

    public async ValueTask ReadAsync(long offset, Memory<byte> buffer)
    {
        await Task.Yield();
        if (_end is not null)
            throw _end;
        _readCount++;
        try
        {
            await file.ReadAsync(offset, buffer);
        }
        finally
        {
            if (--_readCount == 0)
                _idle?.TrySetResult();
        }
        // After the read: what was written over while it ran was kept before that.
        Restore(offset, buffer.Span);
    }

    /// <summary>Keeps what lies where a table is about to be written. A failure ends the view; the write goes on.</summary>
    public async ValueTask KeepAsync(long offset, int bytes)
    {
        long first = offset / SectorBytes;
        long end = Math.Min(offset + bytes + SectorBytes - 1, _lengthBytes + SectorBytes - 1) / SectorBytes;
        while (first < end && _kept.ContainsKey(first))
            first++;
        while (first < end && _kept.ContainsKey(end - 1))
            end--;
        if (first >= end || _end is not null)
            return;
        byte[] old = new byte[(end - first) * SectorBytes];
        try
        {
            await file.ReadAsync(first * SectorBytes, old);
        }
        catch (BlockFileException e)
        {
            _end = e;
            return;
        }
        for (long sector = first; sector < end; sector++)
            _kept.TryAdd(sector, old.AsSpan((int)(sector - first) * SectorBytes, SectorBytes).ToArray());
    }

    /// <summary>Ends the view: who reads it is told so. Afterwards nothing of it is under way in the file.</summary>
    public Task EndAsync()
    {
        _end ??= new ViewEndedException();
        if (_readCount == 0)
            return Task.CompletedTask;
        _idle ??= new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        return _idle.Task;
    }

    public bool TryRead(long offset, Span<byte> buffer) => throw new NotSupportedException("a view is read in turns");

    public void Write(long offset, ReadOnlySpan<byte> data) => throw ReadOnly();

    public ValueTask WriteAsync(long offset, ReadOnlyMemory<byte> data) => throw ReadOnly();

    public ValueTask WriteAsync(long offset, IReadOnlyList<ReadOnlyMemory<byte>> pieces) => throw ReadOnly();

    public ValueTask FlushAsync() => throw ReadOnly();

    public ValueTask<bool> PunchHoleAsync(long offset, long bytes) => throw ReadOnly();

    public ValueTask SetLengthAsync(long bytes) => throw ReadOnly();

    public FileExtent GetExtent(long offset, long limit) => file.GetExtent(offset, limit);

    public ValueTask DisposeAsync() => ValueTask.CompletedTask;

    private void Restore(long offset, Span<byte> buffer)
    {
        if (offset + buffer.Length > _lengthBytes)
            buffer[(int)Math.Clamp(_lengthBytes - offset, 0, buffer.Length)..].Clear();
        if (_kept.Count == 0)
            return;
        for (long sector = offset / SectorBytes; sector * SectorBytes < offset + buffer.Length; sector++)
        {
            if (!_kept.TryGetValue(sector, out byte[]? old))
                continue;
            long start = sector * SectorBytes;
            int from = (int)Math.Max(0, offset - start);
            int to = (int)Math.Min(SectorBytes, offset + buffer.Length - start);
            old.AsSpan(from, to - from).CopyTo(buffer[(int)(start + from - offset)..]);
        }
    }

    private static NotSupportedException ReadOnly() => new("a view is only read");
}
