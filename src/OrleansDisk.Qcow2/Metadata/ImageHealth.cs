using System.Buffers.Binary;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Qcow2.Metadata;

/// <summary>
/// Whether the image may go on. A metadata write or a flush that failed, metadata found damaged, and a broken invariant
/// stop it until it is opened again (docs/consistency.md, W7).
/// </summary>
internal sealed class ImageHealth(IBlockFile file)
{
    private volatile Exception? _cause;

    /// <summary>Told once, when the image stops.</summary>
    public Action? Stopped { get; init; }

    /// <summary>Whether the image has stopped. May be read by any thread.</summary>
    public bool HasFailed => _cause is not null;

    public void ThrowIfFailed()
    {
        if (_cause is { } cause)
            throw new Qcow2FailedException($"'{file.Name}' has stopped; open it again: {cause.Message}", cause);
    }

    /// <summary>Stops the image; the first cause stays.</summary>
    public void Fail(Exception cause)
    {
        if (_cause is not null)
            return;
        _cause = cause;
        Stopped?.Invoke();
    }

    /// <summary>
    /// Reports damaged metadata. A writable image of version 3 is marked corrupt, so that no one writes to it before it
    /// is repaired, and stops; a read-only one only fails the request.
    /// </summary>
    public async ValueTask<Qcow2CorruptException> ReportCorruptionAsync(Header header, string what)
    {
        if (file.IsReadOnly)
        {
            return new Qcow2CorruptException(
                $"qcow2: Image is corrupt: {what}; further non-fatal corruption events will be suppressed");
        }
        var corruption = new Qcow2CorruptException(
            $"qcow2: Marking image as corrupt: {what}; further corruption events will be suppressed");
        if (HasFailed)
            return corruption;
        Fail(corruption);
        if (header.Version >= 3)
        {
            byte[] features = new byte[sizeof(ulong)];
            BinaryPrimitives.WriteUInt64BigEndian(features, (ulong)(header.Incompatible | IncompatibleFeatures.Corrupt));
            await file.WriteAsync(HeaderField.Incompatible, features);
        }
        return corruption;
    }
}
