using OrleansDisk.Qcow2.Concurrency;

namespace OrleansDisk.Qcow2.Operations;

/// <summary>What <see cref="CompareOperation"/> found.</summary>
public enum CompareOutcome
{
    /// <summary>The disks read the same; where one is longer, it reads as zeros there.</summary>
    Identical,

    /// <summary>The disks differ in a sector.</summary>
    ContentDiffers,

    /// <summary>The disks read the same so far, but one has there what the other has not (strict).</summary>
    MappingDiffers,

    /// <summary>The disks differ in size (strict).</summary>
    SizeDiffers,
}

/// <summary>The answer of <see cref="CompareOperation"/>.</summary>
/// <param name="Outcome">Whether the disks are the same.</param>
/// <param name="Offset">Where they first differ.</param>
public readonly record struct CompareResult(CompareOutcome Outcome, long Offset = 0);

/// <summary>How <see cref="CompareOperation"/> compares.</summary>
public sealed record CompareOptions
{
    /// <summary>Whether sizes and the kind of what is mapped count, too.</summary>
    public bool Strict { get; init; }

    /// <summary>Told how many bytes have been compared, and how many there are.</summary>
    public Action<long, long>? Progress { get; init; }

    /// <summary>Told when the common part is the same and the sizes are not.</summary>
    public Action? OnSizeMismatch { get; init; }

    /// <summary>How work that is only computing leaves the caller's scheduler for a while.</summary>
    internal Func<Action, ValueTask> RunBeside { get; init; } = ThreadPoolWork.RunAsync;
}

/// <summary>A disk could not be read; <see cref="IsFirst"/> says which.</summary>
public sealed class CompareException(bool isFirst, long offset, Exception cause) : Qcow2Exception(cause.Message, cause)
{
    /// <summary>Whether it is the first of the two.</summary>
    public bool IsFirst { get; } = isFirst;

    /// <summary>Where on the disk.</summary>
    public long Offset { get; } = offset;

    /// <summary>Whether its map could not be read; else its data.</summary>
    public bool IsOfMapping { get; init; }
}

/// <summary>
/// Compares two disks by what they read as: by their maps first, so that only data is read, and then several parts at
/// once, both sides at once.
/// </summary>
public sealed class CompareOperation
{
    private const int PartBytes = 1 << 20;
    private const int ParallelCount = 8;

    private readonly IReadOnlyList<MapLayer> _first;
    private readonly IReadOnlyList<MapLayer> _second;
    private readonly CompareOptions _options;
    private readonly Queue<Task<long?>> _running = new();
    private readonly Stack<CompareWorker> _idle = new();
    private long _comparedBytes;

    private CompareOperation(IReadOnlyList<MapLayer> first, IReadOnlyList<MapLayer> second, CompareOptions options) =>
        (_first, _second, _options) = (first, second, options);

    private long FirstBytes => _first[0].VirtualBytes;

    private long SecondBytes => _second[0].VirtualBytes;

    private long LongerBytes => Math.Max(FirstBytes, SecondBytes);

    /// <summary>Compares two disks, given as their chains (<see cref="MapOperation.LayersOf"/>).</summary>
    /// <exception cref="CompareException">One can't be read.</exception>
    public static async Task<CompareResult> RunAsync(
        IReadOnlyList<MapLayer> first, IReadOnlyList<MapLayer> second, CompareOptions options)
    {
        var operation = new CompareOperation(first, second, options);
        try
        {
            return await operation.RunAsync();
        }
        finally
        {
            await Task.WhenAny(Task.WhenAll(operation._running)); // what is under way uses disks that are about to be closed
            foreach (CompareWorker worker in operation._idle)
                worker.Dispose();
        }
    }

    private async Task<CompareResult> RunAsync()
    {
        if (_options.Strict && FirstBytes != SecondBytes)
            return new CompareResult(CompareOutcome.SizeDiffers);
        long common = Math.Min(FirstBytes, SecondBytes);
        if (await CompareCommonAsync(common) is { } difference)
            return difference;
        if (FirstBytes != SecondBytes)
        {
            _options.OnSizeMismatch?.Invoke();
            if (await CompareRestAsync(common) is { } offset)
                return new CompareResult(CompareOutcome.ContentDiffers, offset);
        }
        return new CompareResult(CompareOutcome.Identical);
    }

    private async Task<CompareResult?> CompareCommonAsync(long common)
    {
        await using IAsyncEnumerator<MapExtent> first = MapOperation.WalkAsync(_first, 0, common).GetAsyncEnumerator();
        await using IAsyncEnumerator<MapExtent> second = MapOperation.WalkAsync(_second, 0, common).GetAsyncEnumerator();
        MapExtent one = default;
        MapExtent other = default;
        for (long at = 0; at < common;)
        {
            (one, other) = (await CoverAsync(first, one, at, isFirst: true), await CoverAsync(second, other, at, isFirst: false));
            long end = Math.Min(one.Start + one.Bytes, other.Start + other.Bytes);
            if (_options.Strict && !IsSameMapping(one, other))
            {
                return await DrainAsync() is { } earlier ? new CompareResult(CompareOutcome.ContentDiffers, earlier)
                    : new CompareResult(CompareOutcome.MappingDiffers, at);
            }
            if (one.IsZero && other.IsZero)
                Advance(end - at);
            else if (await CompareAsync(at, end, !one.IsZero, !other.IsZero) is { } offset)
                return new CompareResult(CompareOutcome.ContentDiffers, offset);
            at = end;
        }
        return await DrainAsync() is { } last ? new CompareResult(CompareOutcome.ContentDiffers, last) : null;
    }

    /// <summary>What the longer disk has past the end of the other one must read as zeros.</summary>
    private async Task<long?> CompareRestAsync(long common)
    {
        bool isFirst = FirstBytes > SecondBytes;
        await foreach (MapExtent extent in MapOperation.WalkAsync(isFirst ? _first : _second, common, LongerBytes - common))
        {
            if (extent.IsZero)
                Advance(extent.Bytes);
            else if (await CompareAsync(extent.Start, extent.Start + extent.Bytes, isFirst, !isFirst) is { } offset)
                return offset;
        }
        return await DrainAsync();
    }

    /// <summary>Begins to compare a range of data, part by part; returns where an earlier part turned out to differ.</summary>
    private async ValueTask<long?> CompareAsync(long start, long end, bool readsFirst, bool readsSecond)
    {
        while (start < end)
        {
            if (_running.Count == ParallelCount && await _running.Dequeue() is { } offset)
                return offset;
            int bytes = (int)Math.Min(end - start, PartBytes - (start % PartBytes));
            _running.Enqueue(ComparePartAsync(start, bytes, readsFirst, readsSecond));
            start += bytes;
        }
        return null;
    }

    private async Task<long?> DrainAsync()
    {
        while (_running.TryDequeue(out Task<long?>? next))
        {
            if (await next is { } offset)
                return offset;
        }
        return null;
    }

    private async Task<long?> ComparePartAsync(long start, int bytes, bool readsFirst, bool readsSecond)
    {
        if (!_idle.TryPop(out CompareWorker? worker))
            worker = new CompareWorker(_first[0].Source, _second[0].Source, PartBytes, _options.RunBeside);
        try
        {
            return await worker.CompareAsync(start, bytes, readsFirst, readsSecond);
        }
        finally
        {
            _idle.Push(worker);
            Advance(bytes);
        }
    }

    private static bool IsSameMapping(MapExtent one, MapExtent other) =>
        (one.IsZero, one.IsData, one.IsPresent, one.HostOffset is null) == (other.IsZero, other.IsData, other.IsPresent, other.HostOffset is null);

    private static async ValueTask<MapExtent> CoverAsync(IAsyncEnumerator<MapExtent> extents, MapExtent current, long at, bool isFirst)
    {
        if (current.Start + current.Bytes > at)
            return current;
        try
        {
            await extents.MoveNextAsync();
            return extents.Current;
        }
        catch (IOException e)
        {
            throw new CompareException(isFirst, at, e) { IsOfMapping = true };
        }
    }

    private void Advance(long bytes)
    {
        _comparedBytes += bytes;
        _options.Progress?.Invoke(_comparedBytes, LongerBytes);
    }
}
