namespace OrleansDisk.Qcow2.Io;

/// <summary>
/// A file as the engine uses it: the seam between the engine and the disk. Offsets and lengths are bytes. Failed
/// operations throw <see cref="BlockFileException"/>. Calls may overlap in time; a buffer belongs to the call until
/// it completes.
/// </summary>
public interface IBlockFile : IAsyncDisposable
{
    /// <summary>What to call the file in messages: its path.</summary>
    string Name { get; }

    bool IsReadOnly { get; }

    /// <summary>Bytes in the file, counting the writes that completed.</summary>
    long LengthBytes { get; }

    /// <summary>Whether it is a block device: its length can't be changed, and what was never written may be anything.</summary>
    bool IsDevice => false;

    /// <summary>Whether transfers pass the host's page cache by, so that each of them waits for the disk.</summary>
    bool IsDirect => false;

    /// <summary>Fills the buffer; what lies past the end of the file reads as zeros.</summary>
    ValueTask ReadAsync(long offset, Memory<byte> buffer);

    /// <summary>
    /// Fills the buffer on the caller's thread if that takes no waiting for a disk; what lies past the end of the file
    /// reads as zeros. False when it would: the buffer then holds anything. May be called by any thread.
    /// </summary>
    bool TryRead(long offset, Span<byte> buffer);

    /// <summary>Writes all bytes on the caller's thread, growing the file as needed. May be called by any thread.</summary>
    void Write(long offset, ReadOnlySpan<byte> data);

    /// <summary>Writes all bytes, growing the file as needed.</summary>
    ValueTask WriteAsync(long offset, ReadOnlyMemory<byte> data);

    /// <summary>Writes the pieces one behind the other, growing the file as needed.</summary>
    ValueTask WriteAsync(long offset, IReadOnlyList<ReadOnlyMemory<byte>> pieces);

    /// <summary>
    /// A barrier: every write that completed before this call is on stable storage when it completes. After a failure
    /// nothing is known about those writes, and calling again proves nothing.
    /// </summary>
    ValueTask FlushAsync();

    /// <summary>Gives a range back to the host; it then reads as zeros. False when the file system can't.</summary>
    ValueTask<bool> PunchHoleAsync(long offset, long bytes);

    /// <summary>
    /// Has the host keep space ready for a range that nothing was written to, growing the file as needed; it reads as
    /// zeros. A file that can't know of space only grows.
    /// </summary>
    ValueTask AllocateAsync(long offset, long bytes) =>
        offset + bytes > LengthBytes ? SetLengthAsync(offset + bytes) : ValueTask.CompletedTask;

    /// <summary>Has the host copy a range of another file, sharing its space where it can. False when it can't: nothing is known of the range then.</summary>
    ValueTask<bool> TryCopyAsync(IBlockFile source, long sourceOffset, long offset, long bytes) => new(false);

    /// <summary>Cuts the file, or extends it with zeros.</summary>
    ValueTask SetLengthAsync(long bytes);

    /// <summary>
    /// The extent of the file that starts at <paramref name="offset"/>: whether it holds data (else a hole), and how
    /// far that goes, at most to <paramref name="limit"/>.
    /// </summary>
    FileExtent GetExtent(long offset, long limit);
}

/// <summary>A part of a file that is data all through, or a hole all through.</summary>
/// <param name="Bytes">Length, at least 1.</param>
/// <param name="IsData">False for a hole.</param>
public readonly record struct FileExtent(long Bytes, bool IsData);

/// <summary>An operation on a file failed.</summary>
public sealed class BlockFileException : IOException
{
    public BlockFileException(string operation, string file, int errorNumber, string reason)
        : base($"{operation} '{file}' failed: {reason}")
    {
        ErrorNumber = errorNumber;
    }

    /// <summary>The system's error number (errno).</summary>
    public int ErrorNumber { get; }

    /// <summary>Whether the disk, the quota or the largest file size has been reached.</summary>
    public bool IsNoSpace => ErrorNumber is LibC.NoSpace or LibC.QuotaExceeded or LibC.FileTooBig;
}
