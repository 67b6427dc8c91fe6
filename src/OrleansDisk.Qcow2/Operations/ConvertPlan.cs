namespace OrleansDisk.Qcow2.Operations;

/// <summary>
/// What is copied in one go: data in parts that begin and end at multiples of their length wherever they can, so that
/// they are whole clusters; holes that are too short to be worth a request of their own are read along.
/// </summary>
/// <param name="sources">What is copied.</param>
/// <param name="options">How.</param>
/// <param name="clusterBytes">The unit in which the target is written: a power of two.</param>
internal sealed class ConvertPlan(ConvertSources sources, ConvertOptions options, int clusterBytes)
{
    private const int MinPartBytes = 1 << 20;

    /// <summary>A shorter hole costs more as a request than as bytes in which zeros are looked for.</summary>
    private const int MinHoleBytes = 64 << 10;

    private const int SectorBytes = 512;

    /// <summary>The longest part.</summary>
    public int PartBytes { get; } = Math.Max(MinPartBytes, clusterBytes);

    /// <summary>How much of the disk is read and written, rather than zeroed or left alone.</summary>
    public async Task<long> CountDataBytesAsync()
    {
        long bytes = 0;
        await foreach (CopyRange range in WalkAsync())
            bytes += range.Kind == CopyKind.Data ? range.Bytes : 0;
        return bytes;
    }

    /// <summary>The parts, in order and without gaps.</summary>
    public async IAsyncEnumerable<CopyRange> WalkAsync()
    {
        // Compressed clusters are written whole or not at all.
        int unit = options.Compress ? clusterBytes : SectorBytes;
        long at = 0;
        long dataStart = 0;
        await foreach (CopyRange range in sources.WalkAsync(options.OnUnknown))
        {
            long start = Math.Max(at, RoundUp(range.Start, unit));
            long end = range.End == sources.Bytes ? range.End : range.End & -(long)unit;
            if (range.Kind == CopyKind.Data || IsTooShort(range.Kind, end - start))
            {
                for (; EndOfPart(dataStart, long.MaxValue) <= range.End; dataStart = EndOfPart(dataStart, range.End))
                    yield return Part(dataStart, range.End);
                continue;
            }
            for (; dataStart < start; dataStart = EndOfPart(dataStart, start))
                yield return Part(dataStart, start);
            yield return range with { Start = start, Bytes = end - start };
            at = dataStart = end;
        }
        for (; dataStart < sources.Bytes; dataStart = EndOfPart(dataStart, sources.Bytes))
            yield return Part(dataStart, sources.Bytes);
    }

    private CopyRange Part(long start, long limit) => new(start, EndOfPart(start, limit) - start, CopyKind.Data);

    private long EndOfPart(long start, long limit) => Math.Min(limit, (start / PartBytes * PartBytes) + PartBytes);

    private bool IsTooShort(CopyKind kind, long bytes) => kind switch
    {
        CopyKind.Backing => bytes <= 0,
        _ => bytes <= 0 || options.SparseBytes == 0 || (bytes < MinHoleBytes && options.TargetBackingBytes is null),
    };

    private static long RoundUp(long offset, int unit) => (offset + unit - 1) & -(long)unit;
}
