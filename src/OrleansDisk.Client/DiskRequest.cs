using OrleansDisk.Abstractions;

namespace OrleansDisk.Client;

/// <summary>A request of a <see cref="Disk"/> on its way.</summary>
internal sealed class DiskRequest(SectorRequest request, Memory<byte> readTarget = default)
{
    private readonly TaskCompletionSource _ended = new(TaskCreationOptions.RunContinuationsAsynchronously);

    public SectorRequest Request { get; } = request;

    public Memory<byte> ReadTarget { get; } = readTarget;

    public List<SectorExtent> Extents { get; } = [];

    public Task Ended => _ended.Task;

    /// <summary>Whether it may share a batch: what can take long goes alone, so that it holds up nothing else.</summary>
    public bool SharesBatch => Request.Command is SectorCommand.Read or SectorCommand.Write;

    public void End(SectorError error, string? message)
    {
        if (error == SectorError.None)
            _ended.TrySetResult();
        else
            _ended.TrySetException(new ImageException(error, message ?? error.ToString()));
    }
}

/// <summary>Requests of a disk that go in one call.</summary>
internal sealed class DiskBatch(DiskRequest[] requests) : ImageBatch
{
    public void Fill() => Requests = Array.ConvertAll(requests, request => request.Request);

    protected override Memory<byte> ReadTarget(int index) => requests[index].ReadTarget;

    protected override bool AddExtent(int index, SectorExtent extent)
    {
        requests[index].Extents.Add(extent);
        return requests[index].Extents.Count < SectorBatch.MaxExtents;
    }

    protected override void OnCompleted(int index, SectorError error, string? message) => requests[index].End(error, message);
}
