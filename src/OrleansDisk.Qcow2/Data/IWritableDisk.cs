namespace OrleansDisk.Qcow2.Data;

/// <summary>
/// A disk that can be changed: an image, or a raw file. Ranges lie inside the disk, offsets and lengths are bytes. A
/// change is on stable storage after the next flush, or with <c>fua</c> when its own call completes.
/// </summary>
public interface IWritableDisk : IDiskSource
{
    bool IsReadOnly { get; }

    /// <summary>Writes all bytes; they belong to the call until it completes.</summary>
    ValueTask WriteAsync(long offset, ReadOnlyMemory<byte> data, bool fua = false);

    /// <summary>Makes a range read as zeros; with <paramref name="mayUnmap"/> its space may be given up.</summary>
    ValueTask WriteZeroesAsync(long offset, long bytes, bool mayUnmap, bool fua = false);

    /// <summary>Gives a range up, as far as the disk can; what is given up reads as zeros.</summary>
    ValueTask DiscardAsync(long offset, long bytes, bool fua = false);

    /// <summary>Puts on stable storage every change that completed before this call.</summary>
    ValueTask FlushAsync();

    /// <summary>Makes the disk larger or smaller; what is new reads as zeros.</summary>
    /// <param name="virtualBytes">The new size, rounded up to whole sectors of 512 bytes.</param>
    Task ResizeAsync(long virtualBytes);
}
