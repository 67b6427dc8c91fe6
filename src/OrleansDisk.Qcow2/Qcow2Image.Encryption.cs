using OrleansDisk.Qcow2.Concurrency;
using OrleansDisk.Qcow2.Format;

namespace OrleansDisk.Qcow2;

/// <content>
/// Sectors of an encrypted image change as a whole only. Whoever changes a part of one reads the rest of it, and nobody
/// else, in a turn or under a lease, may change it meanwhile: such requests are alone.
/// </content>
public sealed partial class Qcow2Image
{
    private bool IsWhole(long offset, long bytes) => ((offset | bytes) & (_data.WriteUnitBytes - 1)) == 0;

    private async ValueTask ChangePartsAsync(long offset, long bytes, bool fua, Func<ValueTask> change)
    {
        using (RequestGate.Ticket ticket = await _metadata.Gate.EnterExclusiveAsync())
        {
            await GuardAsync(() =>
            {
                ThrowIfUnwritable(offset, bytes);
                return change();
            });
        }
        if (fua)
            await FlushAsync();
    }

    private async ValueTask WritePartsAsync(GuestOffset offset, ReadOnlyMemory<byte> data)
    {
        while (data.Length > 0)
        {
            int before = (int)(offset.Bytes % SectorBytes);
            int bytes = before == 0 && data.Length >= SectorBytes
                ? data.Length - (data.Length % SectorBytes) : Math.Min(SectorBytes - before, data.Length);
            if (bytes >= SectorBytes)
            {
                await _writer.WriteAsync(offset, data[..bytes]);
            }
            else
            {
                byte[] sector = new byte[SectorBytes];
                var start = new GuestOffset(offset.Bytes - before);
                await _reader.ReadAsync(start, sector);
                data[..bytes].CopyTo(sector.AsMemory(before));
                await _writer.WriteAsync(start, sector);
            }
            offset += bytes;
            data = data[bytes..];
        }
    }

    private async ValueTask ZeroPartsAsync(GuestOffset offset, long bytes, bool mayUnmap)
    {
        long end = offset.Bytes + bytes;
        long wholeStart = (offset.Bytes + SectorBytes - 1) / SectorBytes * SectorBytes;
        long wholeEnd = end / SectorBytes * SectorBytes;
        if (wholeStart >= wholeEnd)
        {
            await WritePartsAsync(offset, new byte[bytes]);
            return;
        }
        await WritePartsAsync(offset, new byte[wholeStart - offset.Bytes]);
        await _zeroes.WriteZeroesAsync(new GuestOffset(wholeStart), wholeEnd - wholeStart, mayUnmap);
        await WritePartsAsync(new GuestOffset(wholeEnd), new byte[end - wholeEnd]);
    }
}
