using OrleansDisk.Abstractions;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Grains;

/// <summary>One opening of an image: the engine, the generation that names the opening, and the batches under way.</summary>
internal sealed class HeldImage
{
    /// <summary>Bytes of all reads of a batch whose results travel in one message.</summary>
    private const long MaxCollectedBytes = 64L << 20;

    private readonly SectorBatchResult _done;
    private int _runningCount;
    private TaskCompletionSource? _drained;

    public HeldImage(string key, Qcow2Image image)
    {
        Image = image;
        Layers = MapOperation.LayersOf(image);
        _done = new SectorBatchResult { Image = key, Generation = Generation };
    }

    public Qcow2Image Image { get; }

    /// <summary>The image and what lies below it.</summary>
    public IReadOnlyList<MapLayer> Layers { get; }

    public Guid Generation { get; } = Guid.NewGuid();

    /// <summary>Runs a batch to its end.</summary>
    public ValueTask<SectorBatchResult> RunAsync(SectorBatch batch)
    {
        CollectedResults? collected = null;
        if (batch.Completions is not { } completions)
        {
            if (WhyNotCollected(batch.Requests.Span) is { } refusal)
                return new(new SectorBatchResult { Image = batch.Image, Generation = Generation, Refusal = SectorError.InvalidArgument, Message = refusal });
            completions = collected = new CollectedResults(batch.Requests);
        }
        if (!batch.TryTake())
            return new(_done); // nobody waits for it any more
        _runningCount++;
        var sectorIo = new SectorIo(this, completions);
        List<Task>? pending = null;
        ReadOnlySpan<SectorRequest> requests = batch.Requests.Span;
        for (int i = 0; i < requests.Length; i++)
        {
            ValueTask request = sectorIo.RunAsync(i, requests[i]);
            if (!request.IsCompletedSuccessfully)
                (pending ??= []).Add(request.AsTask());
        }
        return pending is null ? new(End(collected)) : EndAsync(pending, collected);
    }

    /// <summary>An extent as clients are told of it.</summary>
    public static SectorExtent Describe(MapExtent extent) => new(extent.Bytes, IsHole: !extent.IsAllocated, extent.IsZero);

    /// <summary>Completes when no batch is under way; none must be started meanwhile.</summary>
    public Task DrainAsync()
    {
        if (_runningCount == 0)
            return Task.CompletedTask;
        _drained ??= new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        return _drained.Task;
    }

    private async ValueTask<SectorBatchResult> EndAsync(List<Task> pending, CollectedResults? collected)
    {
        await Task.WhenAll(pending);
        return End(collected);
    }

    private SectorBatchResult End(CollectedResults? collected)
    {
        if (--_runningCount == 0)
            _drained?.TrySetResult();
        return collected is null ? _done : new SectorBatchResult
        {
            Image = _done.Image,
            Generation = Generation,
            Results = collected.Results,
        };
    }

    private static string? WhyNotCollected(ReadOnlySpan<SectorRequest> requests)
    {
        long bytes = 0;
        foreach (ref readonly SectorRequest request in requests)
        {
            if (request.Command != SectorCommand.Read)
                continue;
            if (request.Bytes is < 0 or > SectorBatch.MaxTransferBytes)
                return $"a read of {request.Bytes} bytes; at most {SectorBatch.MaxTransferBytes} are allowed";
            bytes += request.Bytes;
        }
        return bytes > MaxCollectedBytes ? $"a batch that reads {bytes} bytes; at most {MaxCollectedBytes} are allowed" : null;
    }
}
