using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Qcow2.Data;

/// <summary>
/// The bytes of guest clusters where they lie on the host: what turns every read and write of guest data into one of a
/// file. Each call has both addresses of its first byte, and its range is one run on the host.
/// </summary>
internal abstract class GuestData
{
    /// <summary>Whether host clusters that were never written read as zeros here.</summary>
    public abstract bool FreshClustersAreZero { get; }

    /// <summary>Writes begin and end at multiples of this: a power of two.</summary>
    public virtual int WriteUnitBytes => 1;

    /// <summary>Fills the buffer.</summary>
    public abstract ValueTask ReadAsync(GuestOffset guest, HostOffset host, Memory<byte> buffer);

    /// <summary>Writes all bytes, growing the file as needed.</summary>
    public abstract ValueTask WriteAsync(GuestOffset guest, HostOffset host, ReadOnlyMemory<byte> data);

    /// <summary>Writes the pieces one behind the other, growing the file as needed.</summary>
    public abstract ValueTask WriteAsync(GuestOffset guest, HostOffset host, IReadOnlyList<ReadOnlyMemory<byte>> pieces);

    /// <summary>Fills the buffer if that takes no waiting; see <see cref="IBlockFile.TryRead"/>. May be called by any thread.</summary>
    public abstract bool TryRead(GuestOffset guest, HostOffset host, Span<byte> buffer);

    /// <summary>Writes all bytes on the caller's thread; see <see cref="IBlockFile.Write"/>. May be called by any thread.</summary>
    public abstract void Write(GuestOffset guest, HostOffset host, ReadOnlySpan<byte> data);
}

/// <summary>Guest data as the guest sees it.</summary>
/// <param name="file">The file that holds it; what lies past its end reads as zeros.</param>
internal sealed class PlainGuestData(IBlockFile file) : GuestData
{
    public override bool FreshClustersAreZero => true;

    public override ValueTask ReadAsync(GuestOffset guest, HostOffset host, Memory<byte> buffer) =>
        file.ReadAsync(host.Bytes, buffer);

    public override ValueTask WriteAsync(GuestOffset guest, HostOffset host, ReadOnlyMemory<byte> data) =>
        file.WriteAsync(host.Bytes, data);

    public override ValueTask WriteAsync(GuestOffset guest, HostOffset host, IReadOnlyList<ReadOnlyMemory<byte>> pieces) =>
        file.WriteAsync(host.Bytes, pieces);

    public override bool TryRead(GuestOffset guest, HostOffset host, Span<byte> buffer) => file.TryRead(host.Bytes, buffer);

    public override void Write(GuestOffset guest, HostOffset host, ReadOnlySpan<byte> data) => file.Write(host.Bytes, data);
}
