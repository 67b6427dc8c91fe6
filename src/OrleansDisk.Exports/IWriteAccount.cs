namespace OrleansDisk.Exports;

/// <summary>
/// Keeps account of the completed writes that no completed flush covers, for who must know what a failed image may have
/// lost. Called on any thread.
/// </summary>
public interface IWriteAccount
{
    /// <summary>Writes that have completed so far.</summary>
    long WrittenCount { get; }

    /// <summary>A write, zeroing or discard without FUA has succeeded.</summary>
    void NoteWritten();

    /// <summary>A flush has succeeded that began when <see cref="WrittenCount"/> was <paramref name="writtenBefore"/>.</summary>
    void NoteFlushed(long writtenBefore);
}
