using OrleansDisk.Abstractions;

namespace OrleansDisk.Grains;

/// <summary>Gathers the completions of a batch that came from another process, for its response.</summary>
internal sealed class CollectedResults(ReadOnlyMemory<SectorRequest> requests) : ISectorCompletions
{
    private readonly SectorResult[] _results = new SectorResult[requests.Length];
    private readonly byte[]?[] _data = new byte[requests.Length][];
    private readonly List<SectorExtent>?[] _extents = new List<SectorExtent>[requests.Length];

    public ReadOnlyMemory<SectorResult> Results => _results;

    public Memory<byte> ReadTarget(int index) => _data[index] ??= new byte[requests.Span[index].Bytes];

    public bool AddExtent(int index, SectorExtent extent)
    {
        List<SectorExtent> extents = _extents[index] ??= [];
        extents.Add(extent);
        return (requests.Span[index].Flags & SectorFlags.OneExtent) == 0 && extents.Count < SectorBatch.MaxExtents;
    }

    public void Complete(int index, SectorError error, string? message) => _results[index] = new SectorResult
    {
        Error = error,
        Message = message,
        Data = error == SectorError.None ? _data[index] : default,
        Extents = error == SectorError.None ? _extents[index]?.ToArray() : default,
    };
}
