using OrleansDisk.Qcow2.Concurrency;
using OrleansDisk.Qcow2.Data;
using OrleansDisk.Qcow2.Format;

namespace OrleansDisk.Qcow2;

/// <content>What concerns an image and what lies below it.</content>
public sealed partial class Qcow2Image
{
    /// <summary>
    /// Gives up all data, so that the backing file shows through everywhere, or zeros without one. A crash in between leaves
    /// some of the data: whoever empties an image has seen to it that the backing file, flushed, reads the same.
    /// </summary>
    /// <exception cref="Qcow2FailedException">A write failed; the image has stopped.</exception>
    public Task MakeEmptyAsync() => ChangeAloneAsync(() => new GuestEmptying(_metadata).RunAsync());

    /// <summary>
    /// Makes a range read as zeros whatever lies below the image, also where it does now: another backing file is about to
    /// take the place of the present one.
    /// </summary>
    internal async ValueTask HideBackingAsync(long offset, ReadOnlyMemory<byte> zeros)
    {
        bool isHidden = false;
        await ChangeAsync(offset, zeros.Length, fua: false,
            async () => isHidden = await _zeroes.TryHideBackingAsync(new GuestOffset(offset), zeros.Length));
        if (!isHidden)
            await WriteAsync(offset, zeros);
    }

    /// <summary>
    /// Changes which backing file the header names; everything written before is on stable storage first. The image goes on
    /// reading through what it was opened with: close it and open it again.
    /// </summary>
    /// <param name="name">The name as it is to be stored, or null: none.</param>
    /// <param name="format">The format as it is to be stored, or null.</param>
    /// <exception cref="Qcow2Exception">The header has no room, or the image can't have a backing file; nothing has changed.</exception>
    public Task ChangeBackingFileAsync(string? name, string? format)
    {
        if (name is not null && _metadata.IsDataFileRaw)
            throw new Qcow2Exception($"'{FileName}' can't have a backing file: its data file is to be a raw image by itself");
        return ChangeAloneAsync(() => new ValueTask(_metadata.ReplaceHeaderAsync(header => header.WithBackingFile(name, format))));
    }

    /// <summary>Runs a change of the whole image between two write-backs, with nobody else inside.</summary>
    private async Task ChangeAloneAsync(Func<ValueTask> change)
    {
        using RequestGate.Ticket ticket = await _metadata.Gate.EnterExclusiveAsync();
        await GuardAsync(async () =>
        {
            ThrowIfUnwritable(0, 0);
            await _metadata.SettleAsync();
            await change();
            await _metadata.SettleAsync();
        });
    }
}
