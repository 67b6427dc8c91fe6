using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Qcow2.Check.Repair;

/// <summary>
/// Writes what a repair changes. The repair has the file to itself, so that its order is its own: it ends in a state that a
/// second repair finishes, whichever of the writes between two barriers are lost (docs/consistency.md, "Repair").
/// </summary>
internal sealed class RepairWriter(IBlockFile file)
{
    public ValueTask WriteAsync(long offset, ReadOnlyMemory<byte> bytes) => file.WriteAsync(offset, bytes);

    /// <summary>Every write before this is on stable storage when it completes.</summary>
    public ValueTask BarrierAsync() => file.FlushAsync();

    /// <summary>Changes fields of the header's first sector, after everything that was written before, and before all else.</summary>
    public async ValueTask WriteHeaderAsync(int field, ReadOnlyMemory<byte> bytes)
    {
        await BarrierAsync();
        await file.WriteAsync(field, bytes);
        await BarrierAsync();
    }

    /// <summary>Replaces the incompatible feature bits.</summary>
    public ValueTask WriteFeaturesAsync(IncompatibleFeatures features)
    {
        byte[] field = new byte[sizeof(ulong)];
        HeaderField.WriteUInt64(field, 0, (ulong)features);
        return WriteHeaderAsync(HeaderField.Incompatible, field);
    }
}
