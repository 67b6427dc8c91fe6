using OrleansDisk.Qcow2.Data;

namespace OrleansDisk.Qcow2.Operations;

/// <summary>Copies one part after the other, in buffers of its own.</summary>
internal sealed class ConvertWorker : IDisposable
{
    private const int SectorBytes = 512;

    private readonly ConvertSources _sources;
    private readonly IWritableDisk _target;
    private readonly ConvertOptions _options;
    private readonly byte[] _buffer;
    private readonly List<ScannedRun> _runs = [];
    private readonly CachedReads _cached;
    private readonly CompressedPart? _compressed;
    private bool _hostCopies;

    public ConvertWorker(ConvertSources sources, IWritableDisk target, ConvertOptions options, int partBytes)
    {
        (_sources, _target, _options) = (sources, target, options);
        _buffer = GC.AllocateUninitializedArray<byte>(partBytes, pinned: true);
        _cached = new CachedReads(sources.Single);
        _hostCopies = options.LetHostCopy && sources.Single is RawImage && target is RawImage;
        if (options.Compress)
            _compressed = new CompressedPart((Qcow2Image)target, partBytes);
    }

    /// <summary>Copies one part.</summary>
    /// <param name="range">The part.</param>
    /// <param name="before">Is awaited before anything is written.</param>
    /// <param name="begun">Is completed when all writes have begun.</param>
    public async Task CopyAsync(CopyRange range, Task before, TaskCompletionSource begun)
    {
        if (_hostCopies && await TryHostCopyAsync(range, before))
            return;
        Memory<byte> data = _buffer.AsMemory(0, (int)range.Bytes);
        bool isDone = false;
        await _options.RunBeside(() =>
        {
            // Mostly the mapping is in the cache and the data, too: then all this takes one hop to another thread.
            isDone = _cached.TryRead(range.Start, data.Span);
            if (isDone)
                LookThrough(range.Start, data.Span);
        });
        if (!isDone)
        {
            await ReadAsync(range.Start, data);
            await _options.RunBeside(() => LookThrough(range.Start, data.Span));
        }
        await before;
        if (_options.Pace is not null)
            await _options.Pace(range.Bytes);
        try
        {
            await (_compressed is null ? WriteAsync(range.Start, data, begun) : _compressed.WriteAsync(range.Start, data, _options.TargetIsZero));
        }
        catch (IOException e)
        {
            throw new CopyException(isWrite: true, range.Start, e);
        }
    }

    public void Dispose()
    {
        _cached.Dispose();
        _compressed?.Dispose();
    }

    /// <summary>After one refusal it is not asked again.</summary>
    private async ValueTask<bool> TryHostCopyAsync(CopyRange range, Task before)
    {
        await before;
        if (_options.Pace is not null)
            await _options.Pace(range.Bytes);
        try
        {
            return _hostCopies = await ((RawImage)_target).TryCopyAsync((RawImage)_sources.Single!, range.Start, range.Bytes);
        }
        catch (IOException e)
        {
            throw new CopyException(isWrite: true, range.Start, e);
        }
    }

    private void LookThrough(long offset, ReadOnlySpan<byte> data)
    {
        if (_compressed is not null)
            _compressed.Compress(data, keepsZeros: _options.SparseBytes == 0);
        else
            ZeroScan.Divide(data, offset, _options.SparseBytes, _runs);
    }

    private async ValueTask ReadAsync(long offset, Memory<byte> data)
    {
        try
        {
            await _sources.ReadAsync(offset, data);
        }
        catch (IOException) when (_options.OnUnreadable is not null)
        {
            await SalvageAsync(offset, data);
        }
        catch (IOException e)
        {
            throw new CopyException(isWrite: false, offset, e);
        }
    }

    /// <summary>Reads sector by sector what can be read.</summary>
    private async ValueTask SalvageAsync(long offset, Memory<byte> data)
    {
        for (int at = 0; at < data.Length; at += SectorBytes)
        {
            Memory<byte> sector = data.Slice(at, Math.Min(SectorBytes, data.Length - at));
            try
            {
                await _sources.ReadAsync(offset + at, sector);
            }
            catch (IOException e)
            {
                _options.OnUnreadable!(offset + at, e);
                sector.Span.Clear();
            }
        }
    }

    private async Task WriteAsync(long offset, ReadOnlyMemory<byte> data, TaskCompletionSource begun)
    {
        for (int i = 0; i < _runs.Count; i++)
        {
            ScannedRun run = _runs[i];
            ValueTask write = !run.IsZero ? _target.WriteAsync(offset + run.Start, data.Slice(run.Start, run.Bytes))
                : _options.TargetIsZero ? ValueTask.CompletedTask
                : _target.WriteZeroesAsync(offset + run.Start, run.Bytes, mayUnmap: true);
            if (i == _runs.Count - 1)
                begun.TrySetResult(); // the file space of the next part follows this one's
            await write;
        }
    }
}
