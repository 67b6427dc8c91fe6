using OrleansDisk.Qcow2.Concurrency;

namespace OrleansDisk.Qcow2.Operations;

/// <summary>How <see cref="ConvertOperation"/> copies.</summary>
public sealed record ConvertOptions
{
    /// <summary>The smallest run of zeros that is left out, in bytes; whole sectors of 512. 0: everything is written as data.</summary>
    public int SparseBytes { get; init; } = 4 << 10;

    /// <summary>Whether the target's clusters are written compressed; it is an image then.</summary>
    public bool Compress { get; init; }

    /// <summary>Parts that are copied at once, 1 or more.</summary>
    public int ParallelCount { get; init; } = 8;

    /// <summary>Whether writes begin in the order of the disk, so that the target's file has it, too.</summary>
    public bool InOrder { get; init; } = true;

    /// <summary>Whether the target reads as zeros wherever nothing is written.</summary>
    public bool TargetIsZero { get; init; }

    /// <summary>
    /// How far something shows through the target where nothing is written: the size of its backing file. Null when it has
    /// none.
    /// </summary>
    public long? TargetBackingBytes { get; init; }

    /// <summary>Whether the host copies from one raw file to another, as it can; zeros in data are not looked for then.</summary>
    public bool LetHostCopy { get; init; }

    /// <summary>Told of a sector that can't be read, which is copied as zeros then; null: that ends the copy.</summary>
    public Action<long, Exception>? OnUnreadable { get; init; }

    /// <summary>
    /// Told of a sector of which the source can't say whether it has data, which is read then; null: that ends the copy. What
    /// is given here and in <see cref="OnUnreadable"/> is told in the order of the disk, since parts are copied one by one.
    /// </summary>
    public Action<long, Exception>? OnUnknown { get; init; }

    /// <summary>Told how many bytes of data have been copied, and how many there are.</summary>
    public Action<long, long>? Progress { get; init; }

    /// <summary>Awaited before each write, with its bytes: for who limits the rate.</summary>
    public Func<long, ValueTask>? Pace { get; init; }

    /// <summary>Ends the copy between two parts, nothing being under way.</summary>
    public CancellationToken Cancellation { get; init; }

    /// <summary>How work that is only computing leaves the caller's scheduler for a while.</summary>
    internal Func<Action, ValueTask> RunBeside { get; init; } = ThreadPoolWork.RunAsync;
}

/// <summary>Copying came upon an error at a place of the disk.</summary>
public sealed class CopyException(bool isWrite, long offset, Exception cause)
    : Qcow2Exception($"error while {(isWrite ? "writing" : "reading")} at byte {offset}: {cause.Message}", cause)
{
    /// <summary>Whether the target could not be written; else a source could not be read.</summary>
    public bool IsWrite { get; } = isWrite;

    /// <summary>Where on the target's disk.</summary>
    public long Offset { get; } = offset;
}
