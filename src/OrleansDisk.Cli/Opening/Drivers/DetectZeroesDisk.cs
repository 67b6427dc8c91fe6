using OrleansDisk.Qcow2.Data;

namespace OrleansDisk.Cli.Opening.Drivers;

/// <summary>detect-zeroes: what is written and consists of zeros is not stored, but noted as zeros.</summary>
internal sealed class DetectZeroesDisk(IWritableDisk below, bool mayUnmap) : FilterDisk(below)
{
    public override ValueTask WriteAsync(long offset, ReadOnlyMemory<byte> data, bool fua = false) =>
        data.Span.ContainsAnyExcept((byte)0) ? base.WriteAsync(offset, data, fua)
            : WriteZeroesAsync(offset, data.Length, mayUnmap, fua);
}
