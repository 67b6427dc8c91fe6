namespace OrleansDisk.Abstractions;

/// <summary>
/// Requests for one image that travel in one call. They start in their order and run side by side; each completes on
/// its own. The object is the sender's: it may be filled and sent again once its call has ended.
/// </summary>
[GenerateSerializer, Immutable, Alias("OrleansDisk.SectorBatch")]
public sealed class SectorBatch
{
    /// <summary>Longest read or write, in bytes.</summary>
    public const int MaxTransferBytes = 32 << 20;

    /// <summary>Most extents that one request reports.</summary>
    public const int MaxExtents = 8192;

    private const int Waiting = 0;
    private const int Taken = 1;
    private const int Abandoned = 2;

    [NonSerialized]
    private ISectorCompletions? _completions;

    [NonSerialized]
    private int _state;

    /// <summary>The key of the image.</summary>
    [Id(0)]
    public string Image { get; set; } = "";

    /// <summary>The opening of the image that the sender knows, from <see cref="IImageGrain.OpenAsync"/>.</summary>
    [Id(1)]
    public Guid Generation { get; set; }

    [Id(2)]
    public ReadOnlyMemory<SectorRequest> Requests { get; set; }

    /// <summary>
    /// Where a grain in the sender's process reads into and reports to. It does not travel: a grain in another
    /// process finds null, and answers with <see cref="SectorBatchResult.Results"/> instead.
    /// </summary>
    public ISectorCompletions? Completions
    {
        get => _completions;
        set => _completions = value;
    }

    /// <summary>Called by the sender before each call.</summary>
    public void Arm() => Volatile.Write(ref _state, Waiting);

    /// <summary>
    /// Called by the grain before it touches a buffer. False when the sender gave up meanwhile: the requests must not
    /// be started any more.
    /// </summary>
    public bool TryTake() => Interlocked.CompareExchange(ref _state, Taken, Waiting) == Waiting;

    /// <summary>
    /// Called by the sender when its call failed. False when the grain had begun: then <see cref="Completions"/> hears
    /// of every request.
    /// </summary>
    public bool TryAbandon() => Interlocked.CompareExchange(ref _state, Abandoned, Waiting) == Waiting;
}

/// <summary>
/// Takes the completions of a batch, as each of its requests ends; called on any thread, for different requests also
/// at once.
/// </summary>
public interface ISectorCompletions
{
    /// <summary>Where the bytes of a read go: as many as it asked for.</summary>
    Memory<byte> ReadTarget(int index);

    /// <summary>
    /// Reports the next extent of a status request, or of a read with <see cref="SectorFlags.ReportHoles"/>, whose
    /// extents cover its whole range if there are any; under those that are zero the read target was not filled.
    /// </summary>
    /// <returns>Whether more extents are of use.</returns>
    bool AddExtent(int index, SectorExtent extent);

    /// <summary>Ends a request; called once for each.</summary>
    void Complete(int index, SectorError error, string? message);
}
