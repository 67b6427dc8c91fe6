using OrleansDisk.Abstractions;

namespace OrleansDisk.Client;

/// <summary>
/// An open disk. Offsets and lengths are bytes, of any alignment. Many calls may be under way at once; they run side
/// by side. What has completed is on stable storage after the next flush, or at once with FUA. Failures are an
/// <see cref="ImageException"/>.
/// </summary>
public sealed class Disk : IAsyncDisposable
{
    private readonly ImageConnection _connection;
    private readonly DiskClientOptions _options;
    private readonly Lock _gate = new();
    private readonly Queue<DiskRequest> _waiting = [];
    private readonly TaskCompletionSource _idle = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private int _outstandingCount;
    private bool _isClosing;

    internal Disk(ImageConnection connection, bool readOnly, DiskClientOptions options)
    {
        (_connection, _options) = (connection, options);
        IsReadOnly = readOnly || connection.Image.IsReadOnly;
    }

    /// <summary>The key of the image.</summary>
    public string Image => _connection.Image.Image;

    /// <summary>Size of the disk in bytes, as it was when the image was opened last.</summary>
    public long Bytes => _connection.Image.VirtualBytes;

    public bool IsReadOnly { get; }

    /// <summary>Fills the buffer, which belongs to the call until it completes.</summary>
    public Task ReadAsync(long offset, Memory<byte> buffer)
    {
        if (buffer.Length <= _options.MaxBatchBytes)
            return ReadPieceAsync(offset, buffer);
        var pieces = new List<Task>();
        for (int at = 0; at < buffer.Length; at += _options.MaxBatchBytes)
            pieces.Add(ReadPieceAsync(offset + at, buffer.Slice(at, Math.Min(_options.MaxBatchBytes, buffer.Length - at))));
        return Task.WhenAll(pieces);
    }

    /// <summary>Writes the bytes, which belong to the call until it completes.</summary>
    public Task WriteAsync(long offset, ReadOnlyMemory<byte> data, bool fua = false)
    {
        if (data.Length <= _options.MaxBatchBytes)
            return WritePieceAsync(offset, data, fua);
        var pieces = new List<Task>();
        for (int at = 0; at < data.Length; at += _options.MaxBatchBytes)
            pieces.Add(WritePieceAsync(offset + at, data.Slice(at, Math.Min(_options.MaxBatchBytes, data.Length - at)), fua));
        return Task.WhenAll(pieces);
    }

    /// <summary>Makes a range read as zeros.</summary>
    /// <param name="offset">First byte.</param>
    /// <param name="bytes">Length of the range.</param>
    /// <param name="mayUnmap">Whether its space in the file may be given up.</param>
    /// <param name="fua">Whether the change is on stable storage when the call completes.</param>
    public Task WriteZeroesAsync(long offset, long bytes, bool mayUnmap = true, bool fua = false) =>
        ChangeAsync(SectorCommand.WriteZeroes, offset, bytes, Fua(fua) | (mayUnmap ? SectorFlags.None : SectorFlags.KeepAllocated));

    /// <summary>Says that a range is not needed any more.</summary>
    public Task DiscardAsync(long offset, long bytes, bool fua = false) =>
        ChangeAsync(SectorCommand.Discard, offset, bytes, Fua(fua));

    /// <summary>Puts on stable storage everything that completed before this call, of every client.</summary>
    public Task FlushAsync() => SendAsync(new DiskRequest(new SectorRequest { Command = SectorCommand.Flush }));

    /// <summary>What is where, from <paramref name="offset"/> on; may stop before the end of the range.</summary>
    public async Task<IReadOnlyList<SectorExtent>> GetExtentsAsync(long offset, long bytes)
    {
        var request = new DiskRequest(new SectorRequest { Command = SectorCommand.Status, Offset = offset, Bytes = bytes });
        await SendAsync(request);
        return request.Extents;
    }

    /// <summary>The disk as a stream of fixed length; it does not own the disk.</summary>
    public Stream AsStream() => new DiskStream(this);

    /// <summary>Waits for what is under way. The image stays open until it is idle or closed.</summary>
    public async ValueTask DisposeAsync()
    {
        lock (_gate)
        {
            _isClosing = true;
            if (_outstandingCount == 0)
                _idle.TrySetResult();
        }
        await _idle.Task;
        await _connection.DisposeAsync();
    }

    private Task ReadPieceAsync(long offset, Memory<byte> buffer) => SendAsync(new DiskRequest(
        new SectorRequest { Command = SectorCommand.Read, Offset = offset, Bytes = buffer.Length }, buffer));

    private Task WritePieceAsync(long offset, ReadOnlyMemory<byte> data, bool fua)
    {
        if (IsReadOnly)
            return Task.FromException(ReadOnlyError());
        return SendAsync(new DiskRequest(new SectorRequest
        {
            Command = SectorCommand.Write,
            Offset = offset,
            Bytes = data.Length,
            Payload = data,
            Flags = Fua(fua),
        }));
    }

    private Task ChangeAsync(SectorCommand command, long offset, long bytes, SectorFlags flags) => IsReadOnly
        ? Task.FromException(ReadOnlyError())
        : SendAsync(new DiskRequest(new SectorRequest { Command = command, Offset = offset, Bytes = bytes, Flags = flags }));

    private Task SendAsync(DiskRequest request)
    {
        lock (_gate)
        {
            ObjectDisposedException.ThrowIf(_isClosing, this);
            _waiting.Enqueue(request);
        }
        SendWaiting();
        return request.Ended;
    }

    private void SendWaiting()
    {
        while (true)
        {
            DiskRequest[] requests;
            lock (_gate)
            {
                if (_outstandingCount == _options.Window || _waiting.Count == 0)
                    return;
                requests = TakeBatch();
                _outstandingCount++;
            }
            _ = SendBatchAsync(requests);
        }
    }

    private DiskRequest[] TakeBatch()
    {
        var taken = new List<DiskRequest> { _waiting.Dequeue() };
        long bytes = taken[0].Request.Bytes;
        while (taken[0].SharesBatch && taken.Count < _options.MaxBatchRequests && _waiting.TryPeek(out DiskRequest? next)
            && next.SharesBatch && bytes + next.Request.Bytes <= _options.MaxBatchBytes)
        {
            bytes += next.Request.Bytes;
            taken.Add(_waiting.Dequeue());
        }
        return [.. taken];
    }

    private async Task SendBatchAsync(DiskRequest[] requests)
    {
        try
        {
            var batch = new DiskBatch(requests);
            batch.Fill();
            await _connection.SubmitAsync(batch);
        }
        finally
        {
            lock (_gate)
            {
                if (--_outstandingCount == 0 && _isClosing && _waiting.Count == 0)
                    _idle.TrySetResult();
            }
            SendWaiting();
        }
    }

    private ImageException ReadOnlyError() => new(SectorError.ReadOnly, $"disk '{Image}' is open for reading only");

    private static SectorFlags Fua(bool fua) => fua ? SectorFlags.Fua : SectorFlags.None;
}
