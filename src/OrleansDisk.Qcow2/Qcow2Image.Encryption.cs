using OrleansDisk.Qcow2.Concurrency;
using OrleansDisk.Qcow2.Crypto;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Qcow2;

/// <content>
/// Sectors of an encrypted image change as a whole only. Whoever changes a part of one reads the rest of it, and nobody
/// else, in a turn or under a lease, may change it meanwhile: such requests are alone.
/// </content>
public sealed partial class Qcow2Image
{
    private Task? _changingKeys;

    /// <summary>
    /// Fills or erases key slots of an image that LUKS encrypts. What is filled opens when the call completes, and what is
    /// erased opens no more; a crash in between finds each slot as it was or as it is to be. But one that is in use and is
    /// overwritten by force may then open to no password: fill a free one first.
    /// </summary>
    /// <exception cref="Qcow2Exception">It can't be done, in QEMU's words; nothing has changed.</exception>
    /// <exception cref="Qcow2FailedException">A write failed; the image has stopped.</exception>
    public Task ChangeKeySlotsAsync(KeySlotChange change) => ChangeKeySlotsAsync(_ => change);

    /// <summary>The same, with a change that depends on the header, or that takes time to make.</summary>
    public async Task ChangeKeySlotsAsync(Func<LuksHeader, KeySlotChange> makeChange)
    {
        while (_changingKeys is { } other)
            await other;
        var changed = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        _changingKeys = changed.Task;
        try
        {
            await RunAsync(() => new ValueTask(ChangeKeySlotsAloneAsync(makeChange)));
        }
        finally
        {
            _changingKeys = null;
            changed.SetResult();
        }
    }

    private async Task ChangeKeySlotsAloneAsync(Func<LuksHeader, KeySlotChange> makeChange)
    {
        ThrowIfUnwritable(0, 0);
        RequireKeySlots(Header);
        using LuksKeys keys = await KeyReader.ReadAsync(_file, Header);
        IReadOnlyList<int> slots = [];
        bool activates = false;
        // Deriving keys takes a second or two, on purpose.
        await _metadata.RunBeside(() =>
        {
            KeySlotChange change = makeChange(keys.Header);
            slots = change.Apply(keys);
            activates = change.Activates;
        });
        long start = EncryptionHeader.Of(Header).Start.Bytes;
        byte[] header = keys.Area[..LuksHeader.HeaderBytes].ToArray();
        // One slot lies in two sectors. The first says whether it is filled; until then the second may say anything of it.
        var mark = new HeaderWrite(start, header[..SectorBytes]);
        var rest = new HeaderWrite(start + SectorBytes, header[SectorBytes..]);
        List<HeaderWrite> material = [.. slots.Select(keys.StoredMaterial).Select(stored => new HeaderWrite(start + stored.Offset, stored.Bytes))];
        // A slot is marked as filled when it is, and as erased before it is.
        await _metadata.Order.BetweenWriteBacksAsync(() =>
            _metadata.Order.WriteHeaderAsync(activates ? [.. material, rest, mark] : [mark, rest, .. material]));
    }

    /// <summary>Refuses images that have no key slots, in QEMU's words.</summary>
    internal static void RequireKeySlots(Header header)
    {
        if (header.Encryption != EncryptionMethod.Luks)
        {
            throw new Qcow2Exception(header.Encryption == EncryptionMethod.None
                ? "Can't amend encryption options - encryption not present" : "Only LUKS encryption options can be amended");
        }
    }

    private bool IsWhole(long offset, long bytes) => ((offset | bytes) & (_data.WriteUnitBytes - 1)) == 0;

    // A method of its own: a lambda that captures a parameter costs the calls that don't come to it, too.
    private ValueTask WritePartsAsync(long offset, ReadOnlyMemory<byte> data, bool fua) =>
        ChangePartsAsync(offset, data.Length, fua, () => WritePartsAsync(new GuestOffset(offset), data));

    private async ValueTask ChangePartsAsync(long offset, long bytes, bool fua, Func<ValueTask> change)
    {
        using (RequestGate.Ticket ticket = await _metadata.Gate.EnterExclusiveAsync())
        {
            await GuardAsync(() =>
            {
                BeginChange(offset, bytes);
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
