using OrleansDisk.Qcow2.Data;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Cli.Opening.Drivers;

/// <summary>
/// A raw disk whose format nobody gave. A guest must not turn it into an image that names files of the host as its
/// backing file, so what would make it look like one is refused.
/// </summary>
internal sealed class ProbedRawDisk(IWritableDisk below) : FilterDisk(below)
{
    private const int NotPermitted = 1;
    private const int ProbedBytes = 512;

    public override ValueTask WriteAsync(long offset, ReadOnlyMemory<byte> data, bool fua = false) =>
        offset < ProbedBytes ? WriteStartAsync(offset, data, fua) : base.WriteAsync(offset, data, fua);

    private async ValueTask WriteStartAsync(long offset, ReadOnlyMemory<byte> data, bool fua)
    {
        byte[] start = new byte[ProbedBytes];
        await Below.ReadAsync(0, start);
        data.Span[..Math.Min(data.Length, ProbedBytes - (int)offset)].CopyTo(start.AsSpan((int)offset));
        if (Header.Probe(start))
            throw new BlockFileException("writing", FileName, NotPermitted, "Operation not permitted; give the format raw to write the start of an image");
        await base.WriteAsync(offset, data, fua);
    }
}
