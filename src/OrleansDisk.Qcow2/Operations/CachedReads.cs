using OrleansDisk.Qcow2.Data;

namespace OrleansDisk.Qcow2.Operations;

/// <summary>
/// Reads a disk on whatever thread asks, without a turn of its image, as long as that takes nothing but copying: the mapping
/// and the data are in memory. One thread at a time.
/// </summary>
/// <param name="disk">The disk; null, or of another kind than an image or a raw file: nothing can be read so.</param>
internal sealed class CachedReads(IDiskSource? disk) : IDisposable
{
    private readonly MappingLease? _lease = (disk as Qcow2Image)?.Lease();

    /// <summary>Fills the buffer, or tells that it must be read the usual way, which also tells what is wrong.</summary>
    public bool TryRead(long offset, Span<byte> buffer)
    {
        try
        {
            return _lease is not null ? _lease.TryRead(offset, buffer) : disk is RawImage raw && raw.TryRead(offset, buffer);
        }
        catch (IOException)
        {
            return false;
        }
    }

    public void Dispose() => _lease?.Dispose();
}
