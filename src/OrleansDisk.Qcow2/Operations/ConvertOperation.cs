using OrleansDisk.Qcow2.Data;

namespace OrleansDisk.Qcow2.Operations;

/// <summary>
/// Copies disks to another one: several parts at once, what is zero as zeros. It runs on the scheduler that the disks are
/// used on; reading, looking for zeros and compressing leave it.
/// </summary>
public sealed class ConvertOperation
{
    private const int DefaultUnitBytes = 64 << 10;

    private readonly ConvertSources _sources;
    private readonly IWritableDisk _target;
    private readonly ConvertOptions _options;
    private readonly ConvertPlan _plan;
    private readonly Stack<ConvertWorker> _idle = new();
    private readonly Queue<Task> _running = new();
    private Task _begun = Task.CompletedTask;
    private long _copiedBytes;
    private long _dataBytes;

    private ConvertOperation(IReadOnlyList<ConvertSource> sources, IWritableDisk target, ConvertOptions options)
    {
        (_sources, _target, _options) = (new ConvertSources(sources), target, options);
        int clusterBytes = target is Qcow2Image image ? image.Header.Geometry.ClusterBytes : DefaultUnitBytes;
        _plan = new ConvertPlan(_sources, options, clusterBytes);
    }

    /// <summary>Copies; the target is as large as the sources together, or larger. It is flushed at the end.</summary>
    /// <param name="sources">What is copied: one behind the other.</param>
    /// <param name="target">The disk that is written.</param>
    /// <param name="options">How it is copied.</param>
    /// <exception cref="CopyException">A disk can't be read or written.</exception>
    /// <exception cref="OperationCanceledException">It was cancelled; the target is consistent, and not complete.</exception>
    public static async Task RunAsync(IReadOnlyList<ConvertSource> sources, IWritableDisk target, ConvertOptions options)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(options.ParallelCount, 1);
        if (options.Compress && target is not Qcow2Image)
            throw new Qcow2Exception("Compression not supported for this file format");
        var operation = new ConvertOperation(sources, target, options);
        if (operation._sources.Bytes > target.VirtualBytes)
            throw new Qcow2Exception("output file is smaller than input file");
        await operation.RunAsync();
    }

    private async Task RunAsync()
    {
        bool isUncertain = _options.OnUnknown is not null || _options.OnUnreadable is not null;
        if (_options.Progress is not null || isUncertain)
            _dataBytes = await _plan.CountDataBytesAsync();
        try
        {
            await foreach (CopyRange range in _plan.WalkAsync())
            {
                _options.Cancellation.ThrowIfCancellationRequested();
                if (_running.Count == _options.ParallelCount)
                    await _running.Dequeue();
                Begin(range);
                while (isUncertain && _running.TryDequeue(out Task? only))
                    await only;
            }
            while (_running.TryDequeue(out Task? next))
                await next;
        }
        finally
        {
            // After a failure the others end as they may: it is the one that is told.
            await Task.WhenAny(Task.WhenAll(_running));
            foreach (ConvertWorker worker in _idle)
                worker.Dispose();
        }
        await _target.FlushAsync();
    }

    private void Begin(CopyRange range)
    {
        if (range.Kind != CopyKind.Data)
        {
            if (range.Kind == CopyKind.Zero && !_options.TargetIsZero)
                _running.Enqueue(ZeroAsync(range));
            return;
        }
        if (!_idle.TryPop(out ConvertWorker? worker))
            worker = new ConvertWorker(_sources, _target, _options, _plan.PartBytes);
        Task before = _options.InOrder ? _begun : Task.CompletedTask;
        var begun = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        _begun = begun.Task;
        _running.Enqueue(CopyAsync(worker, range, before, begun));
    }

    private async Task CopyAsync(ConvertWorker worker, CopyRange range, Task before, TaskCompletionSource begun)
    {
        try
        {
            await worker.CopyAsync(range, before, begun);
        }
        finally
        {
            begun.TrySetResult();
            _idle.Push(worker);
        }
        _copiedBytes += range.Bytes;
        _options.Progress?.Invoke(_copiedBytes, _dataBytes);
    }

    private async Task ZeroAsync(CopyRange range)
    {
        // Past the end of the target's backing file nothing shows through.
        long bytes = _options.TargetBackingBytes is { } backingBytes
            ? Math.Clamp(backingBytes - range.Start, 0, range.Bytes) : range.Bytes;
        if (bytes == 0)
            return;
        try
        {
            await _target.WriteZeroesAsync(range.Start, bytes, mayUnmap: true);
        }
        catch (IOException e)
        {
            throw new CopyException(isWrite: true, range.Start, e);
        }
    }
}
