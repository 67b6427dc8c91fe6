using OrleansDisk.Qcow2.Concurrency;
using OrleansDisk.Qcow2.Data;

namespace OrleansDisk.Qcow2.Operations;

/// <summary>How <see cref="RebaseOperation"/> goes about it.</summary>
public sealed record RebaseOptions
{
    /// <summary>Told how many bytes of the disk have been looked at, and how many there are.</summary>
    public Action<long, long>? Progress { get; init; }

    /// <summary>Whether whole clusters that are copied are compressed.</summary>
    public bool Compress { get; init; }

    /// <summary>Ends it between two parts; the image then reads as it did.</summary>
    public CancellationToken Cancellation { get; init; }

    /// <summary>How work that is only computing leaves the caller's scheduler for a while.</summary>
    internal Func<Action, ValueTask> RunBeside { get; init; } = ThreadPoolWork.RunAsync;
}

/// <summary>
/// Gives an image another backing file, or none, without changing what it reads as: what differs between the old one and
/// the new one is copied into the image first. A crash before the header changes leaves the image as it was.
/// </summary>
public sealed class RebaseOperation
{
    private const int PartBytes = 2 << 20;

    private readonly Qcow2Image _image;
    private readonly IReadOnlyList<MapLayer> _layers;
    private readonly IDiskSource? _newBacking;
    private readonly RebaseOptions _options;
    private readonly int _sharedDepth;
    private readonly byte[] _old = GC.AllocateUninitializedArray<byte>(PartBytes, pinned: true);
    private readonly byte[] _new = GC.AllocateUninitializedArray<byte>(PartBytes, pinned: true);

    private RebaseOperation(Qcow2Image image, IReadOnlyList<MapLayer> layers, IDiskSource? newBacking, RebaseOptions options)
    {
        (_image, _layers, _newBacking, _options) = (image, layers, newBacking, options);
        _sharedDepth = newBacking is null ? 0 : FindShared(layers, newBacking);
    }

    /// <summary>
    /// Copies what differs between the old backing file and the new one. What the image reads as has not changed then, with
    /// either of them: <see cref="Qcow2Image.ChangeBackingFileAsync"/> may follow.
    /// </summary>
    /// <param name="image">The image, open for writing with its backing chain.</param>
    /// <param name="newBacking">The new backing file, open, or null: the image is to stand alone.</param>
    /// <param name="options">Progress and cancellation.</param>
    /// <exception cref="CopyException">A disk can't be read or written.</exception>
    public static Task CopyAsync(Qcow2Image image, IDiskSource? newBacking, RebaseOptions options) =>
        new RebaseOperation(image, MapOperation.LayersOf(image), newBacking, options).CopyDifferencesAsync();

    private async Task CopyDifferencesAsync()
    {
        await foreach (MapExtent extent in MapOperation.WalkAsync([_layers[0]], 0, _image.VirtualBytes))
        {
            if (!extent.IsPresent)
                await CopyDifferencesAsync(extent.Start, extent.Start + extent.Bytes);
            _options.Progress?.Invoke(extent.Start + extent.Bytes, _image.VirtualBytes);
        }
    }

    /// <summary>Copies what differs in a range that the image leaves to its backing file.</summary>
    private async Task CopyDifferencesAsync(long start, long end)
    {
        if (_sharedDepth == 0)
        {
            await ComparePartsAsync(start, end);
            return;
        }
        // The new backing file is in the old chain: only what lies between can differ.
        IReadOnlyList<MapLayer> between = [.. _layers.Skip(1).Take(_sharedDepth - 1)];
        if (between.Count == 0)
            return;
        long at = start;
        await foreach (MapExtent extent in MapOperation.WalkAsync(between, start, end - start))
        {
            at = extent.Start + extent.Bytes;
            // Not present further up is past the end of the next layer.
            if (extent.IsPresent || extent.Depth < between.Count - 1)
                await ComparePartsAsync(extent.Start, at);
        }
        await ComparePartsAsync(at, end);
    }

    private async Task ComparePartsAsync(long start, long end)
    {
        for (long at = start; at < end;)
        {
            _options.Cancellation.ThrowIfCancellationRequested();
            int bytes = (int)Math.Min(end - at, PartBytes - (at % PartBytes));
            await ComparePartAsync(at, bytes);
            at += bytes;
            _options.Progress?.Invoke(at, _image.VirtualBytes);
        }
    }

    private async Task ComparePartAsync(long start, int bytes)
    {
        if (await IsZeroAsync(_image.Backing, start, bytes) && await IsZeroAsync(_newBacking, start, bytes))
            return;
        Memory<byte> old = _old.AsMemory(0, bytes);
        Memory<byte> changed = _new.AsMemory(0, bytes);
        try
        {
            await ReadAsync(_image.Backing, start, old);
            await ReadAsync(_newBacking, start, changed);
        }
        catch (IOException e)
        {
            throw new CopyException(isWrite: false, start, e);
        }
        var runs = new List<ScannedRun>();
        await _options.RunBeside(() => FindDifferences(start, old.Span, changed.Span, runs));
        foreach (ScannedRun run in runs)
            await WriteAsync(start + run.Start, old.Slice(run.Start, run.Bytes), isZero: run.IsZero);
    }

    private async ValueTask WriteAsync(long offset, ReadOnlyMemory<byte> data, bool isZero)
    {
        try
        {
            if (isZero)
                await _image.HideBackingAsync(offset, data);
            else if (_options.Compress)
                await WriteCompressedAsync(offset, data);
            else
                await _image.WriteAsync(offset, data);
        }
        catch (IOException e)
        {
            throw new CopyException(isWrite: true, offset, e);
        }
    }

    private async ValueTask WriteCompressedAsync(long offset, ReadOnlyMemory<byte> data)
    {
        int clusterBytes = _image.Header.Geometry.ClusterBytes;
        while (data.Length > 0)
        {
            int bytes = (int)Math.Min(clusterBytes - (offset & (clusterBytes - 1)), data.Length);
            bool isWhole = bytes == Math.Min(clusterBytes, _image.VirtualBytes - offset);
            await (isWhole ? _image.WriteCompressedAsync(offset, data[..bytes]) : _image.WriteAsync(offset, data[..bytes]));
            offset += bytes;
            data = data[bytes..];
        }
    }

    /// <summary>
    /// Whole clusters that differ, since a write takes up whole ones anyway; past the end of the old backing file they are zeros.
    /// </summary>
    private void FindDifferences(long start, ReadOnlySpan<byte> old, ReadOnlySpan<byte> changed, List<ScannedRun> runs)
    {
        int unit = _image.Header.Geometry.ClusterBytes;
        for (int at = 0; at < old.Length;)
        {
            int bytes = (int)Math.Min(unit - ((start + at) & (unit - 1)), old.Length - at);
            ReadOnlySpan<byte> cluster = old.Slice(at, bytes);
            if (!cluster.SequenceEqual(changed.Slice(at, bytes)))
            {
                bool isPastOldBacking = start + at >= (_image.Backing?.VirtualBytes ?? 0);
                if (runs.Count > 0 && runs[^1].IsZero == isPastOldBacking && runs[^1].Start + runs[^1].Bytes == at)
                    runs[^1] = runs[^1] with { Bytes = runs[^1].Bytes + bytes };
                else
                    runs.Add(new ScannedRun(at, bytes, IsZero: isPastOldBacking));
            }
            at += bytes;
        }
    }

    private static async ValueTask ReadAsync(IDiskSource? disk, long offset, Memory<byte> buffer)
    {
        if (disk is null)
            buffer.Span.Clear();
        else
            await disk.ReadAsync(offset, buffer);
    }

    private static async ValueTask<bool> IsZeroAsync(IDiskSource? disk, long start, long bytes)
    {
        if (disk is null)
            return true;
        await foreach (MapExtent extent in MapOperation.WalkAsync(MapOperation.LayersOf(disk), start, bytes))
        {
            if (!extent.IsZero)
                return false;
        }
        return true;
    }

    /// <summary>At which depth of a chain a disk lies, or 0.</summary>
    private static int FindShared(IReadOnlyList<MapLayer> layers, IDiskSource disk)
    {
        for (int depth = 1; depth < layers.Count; depth++)
        {
            if (Path.GetFullPath(layers[depth].Source.FileName) == Path.GetFullPath(disk.FileName))
                return depth;
        }
        return 0;
    }
}
