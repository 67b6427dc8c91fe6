using OrleansDisk.Abstractions;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Concurrency;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Grains;

/// <summary>One opening of an image: the engine with its turns, and the generation that names the opening.</summary>
internal sealed class HeldImage
{
    /// <summary>Bytes of all reads of a batch whose results travel in one message.</summary>
    private const long MaxCollectedBytes = 64L << 20;

    private readonly SectorBatchResult _done;

    public HeldImage(string key, SharedDisk disk)
    {
        Disk = disk;
        _done = new SectorBatchResult { Image = key, Generation = Generation };
    }

    /// <summary>The image with its turns, which sessions of this process share with the grain.</summary>
    public SharedDisk Disk { get; }

    public Qcow2Image Image => Disk.Image!;

    public Guid Generation { get; } = Guid.NewGuid();

    /// <summary>Opens an image file, in the turns that it will have.</summary>
    public static async Task<HeldImage> OpenAsync(string key, string path, Qcow2OpenOptions options)
    {
        var turns = new ImageTurns();
        Qcow2Image image = await turns.RunAsync(() => Qcow2Image.OpenAsync(path, options));
        return new HeldImage(key, new SharedDisk(image, MapOperation.LayersOf(image), turns));
    }

    /// <summary>Runs a batch to its end, in turns of the image.</summary>
    public Task<SectorBatchResult> RunAsync(SectorBatch batch) => Disk.Turns.RunAsync(() => RunInTurnAsync(batch));

    /// <summary>What a request is told that comes for an opening that has ended.</summary>
    public static SectorBatchResult RefuseStale(string key, Guid generation) => new()
    {
        Image = key,
        Generation = generation,
        Refusal = SectorError.StaleGeneration,
        Message = $"image '{key}' was closed meanwhile; open it again",
    };

    /// <summary>An extent as clients are told of it.</summary>
    public static SectorExtent Describe(MapExtent extent) => new(extent.Bytes, IsHole: !extent.IsAllocated, extent.IsZero);

    /// <summary>In a turn: what is where in a range of the disk, as far as one message holds it.</summary>
    public async Task<ReadOnlyMemory<SectorExtent>> MapAsync(long offset, long bytes)
    {
        var extents = new List<SectorExtent>();
        await foreach (MapExtent found in MapOperation.WalkAsync(Disk.Layers, offset, bytes))
        {
            SectorExtent extent = Describe(found);
            if (extents.Count > 0 && extents[^1] is var last && last.IsHole == extent.IsHole && last.IsZero == extent.IsZero)
                extents[^1] = last with { Bytes = last.Bytes + extent.Bytes };
            else if (extents.Count < SectorBatch.MaxExtents)
                extents.Add(extent);
            else
                break;
        }
        return new ReadOnlyMemory<SectorExtent>([.. extents]);
    }

    private async Task<SectorBatchResult> RunInTurnAsync(SectorBatch batch)
    {
        if (Disk.HasEnded)
            return RefuseStale(_done.Image, Guid.Empty);
        CollectedResults? collected = null;
        if (batch.Completions is not { } completions)
        {
            if (WhyNotCollected(batch.Requests.Span) is { } refusal)
                return new SectorBatchResult { Image = _done.Image, Generation = Generation, Refusal = SectorError.InvalidArgument, Message = refusal };
            completions = collected = new CollectedResults(batch.Requests);
        }
        if (!batch.TryTake())
            return _done; // nobody waits for it any more
        if (Start(batch.Requests.Span, completions) is { } pending)
        {
            Disk.Begin();
            await Task.WhenAll(pending);
            Disk.End();
        }
        return collected is null ? _done : new SectorBatchResult { Image = _done.Image, Generation = Generation, Results = collected.Results };
    }

    /// <summary>Starts requests; those that did not complete at once, or null. Their tasks never fail.</summary>
    private List<Task>? Start(ReadOnlySpan<SectorRequest> requests, ISectorCompletions completions)
    {
        var sectorIo = new SectorIo(Disk, completions);
        List<Task>? pending = null;
        for (int i = 0; i < requests.Length; i++)
        {
            ValueTask request = sectorIo.RunAsync(i, requests[i]);
            if (!request.IsCompletedSuccessfully)
                (pending ??= []).Add(request.AsTask());
        }
        return pending;
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
