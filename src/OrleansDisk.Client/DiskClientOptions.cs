namespace OrleansDisk.Client;

/// <summary>How a <see cref="DiskClient"/> sends.</summary>
public sealed record DiskClientOptions
{
    /// <summary>Batches of one disk under way at once; what comes meanwhile goes together in the next. At least 1.</summary>
    public int Window { get; init; } = 4;

    /// <summary>Most requests in one batch, at least 1.</summary>
    public int MaxBatchRequests { get; init; } = 64;

    /// <summary>
    /// Most bytes that the reads and writes of one batch move; longer ones are split. 4 KiB to
    /// <see cref="Abstractions.SectorBatch.MaxTransferBytes"/>.
    /// </summary>
    public int MaxBatchBytes { get; init; } = 1 << 20;

    /// <summary>Where time comes from.</summary>
    public TimeProvider TimeProvider { get; init; } = TimeProvider.System;

    internal void Check()
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(Window, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(MaxBatchRequests, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(MaxBatchBytes, 4096);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(MaxBatchBytes, Abstractions.SectorBatch.MaxTransferBytes);
    }
}
