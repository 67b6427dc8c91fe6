namespace OrleansDisk.Abstractions;

/// <summary>What became of a <see cref="SectorBatch"/>.</summary>
[GenerateSerializer, Immutable, Alias("OrleansDisk.SectorBatchResult")]
public sealed class SectorBatchResult
{
    /// <summary>The key of the image that answers.</summary>
    [Id(0)]
    public required string Image { get; init; }

    /// <summary>The opening of the image that answers; empty when it is not open.</summary>
    [Id(1)]
    public required Guid Generation { get; init; }

    /// <summary>Why none of the requests was started, or <see cref="SectorError.None"/>.</summary>
    [Id(2)]
    public SectorError Refusal { get; init; }

    [Id(3)]
    public string? Message { get; init; }

    /// <summary>One for each request; empty when the batch's own completions were told.</summary>
    [Id(4)]
    public ReadOnlyMemory<SectorResult> Results { get; init; }
}

/// <summary>What became of one request.</summary>
[GenerateSerializer, Immutable, Alias("OrleansDisk.SectorResult")]
public readonly record struct SectorResult
{
    [Id(0)]
    public SectorError Error { get; init; }

    [Id(1)]
    public string? Message { get; init; }

    /// <summary>The bytes of a read.</summary>
    [Id(2)]
    public ReadOnlyMemory<byte> Data { get; init; }

    [Id(3)]
    public ReadOnlyMemory<SectorExtent> Extents { get; init; }
}
