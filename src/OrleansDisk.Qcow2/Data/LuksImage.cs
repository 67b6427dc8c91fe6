using System.Buffers;
using OrleansDisk.Qcow2.Concurrency;
using OrleansDisk.Qcow2.Crypto;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Qcow2.Data;

/// <summary>
/// A file that is one disk under LUKS version 1: header and key material, then the disk's sectors, which are numbered
/// from its start. It runs in turns, as an image does.
/// </summary>
public sealed class LuksImage : IWritableDisk
{
    private const int SectorBytes = SectorCipher.SectorBytes;
    private const int SectorMask = SectorBytes - 1;

    /// <summary>Longest part that is encrypted in one buffer.</summary>
    private const int MaxPartBytes = 1 << 20;

    private static readonly ReadOnlyMemory<byte> _zeros = new byte[256 << 10];

    private readonly IBlockFile _file;
    private readonly SectorCipher _cipher;

    /// <summary>Who changes a part of a sector reads the rest of it, which nobody may change meanwhile, and is alone.</summary>
    private readonly RequestGate _gate = new();

    private readonly long _start;

    private LuksImage(IBlockFile file, LuksKeys keys)
    {
        _file = file;
        _cipher = keys.CreateCipher();
        Header = keys.Header;
        _start = (long)keys.Header.PayloadSector * SectorBytes;
    }

    /// <summary>The header as it is on disk.</summary>
    public LuksHeader Header { get; private set; }

    public string FileName => _file.Name;

    public string Format => "luks";

    public long VirtualBytes => Math.Max(0, _file.LengthBytes - _start) & ~(long)SectorMask;

    public IDiskSource? Backing => null;

    public bool IsReadOnly => _file.IsReadOnly;

    /// <summary>Unlocks a disk; it owns the file from then on.</summary>
    /// <param name="file">The file.</param>
    /// <param name="secret">A password of it; it is the caller's.</param>
    /// <exception cref="Qcow2Exception">There is no password, or it is the wrong one, or the header is damaged.</exception>
    public static async Task<LuksImage> OpenAsync(IBlockFile file, Secret? secret)
    {
        using LuksKeys keys = await KeyReader.ReadAsync(file);
        if (secret is null)
            throw new Qcow2Exception("Parameter 'key-secret' is required for cipher");
        bool isUnlocked = false;
        // Deriving a key takes a second or two, on purpose.
        await ThreadPoolWork.RunAsync(() => isUnlocked = keys.TryUnlock(secret.Bytes));
        return isUnlocked ? new LuksImage(file, keys) : throw new Qcow2Exception("Invalid password, cannot unlock any keyslot");
    }

    /// <summary>Fills or erases key slots; see <see cref="Qcow2Image.ChangeKeySlotsAsync(Func{LuksHeader, KeySlotChange})"/>.</summary>
    /// <exception cref="Qcow2Exception">It can't be done, in QEMU's words; nothing has changed.</exception>
    public async Task ChangeKeySlotsAsync(Func<LuksHeader, KeySlotChange> makeChange)
    {
        using RequestGate.Ticket ticket = await _gate.EnterExclusiveAsync();
        ThrowIfUnwritable(0, 0);
        using LuksKeys keys = await KeyReader.ReadAsync(_file);
        IReadOnlyList<int> slots = [];
        bool activates = false;
        await ThreadPoolWork.RunAsync(() =>
        {
            KeySlotChange change = makeChange(keys.Header);
            slots = change.Apply(keys);
            activates = change.Activates;
        });
        // A slot is marked as filled when it is, and as erased before it is.
        if (!activates)
            await WriteMarkAsync(keys);
        foreach (int slot in slots)
        {
            (long offset, byte[] material) = keys.StoredMaterial(slot);
            await _file.WriteAsync(offset, material);
        }
        await _file.FlushAsync();
        if (activates)
            await WriteMarkAsync(keys);
        Header = keys.Header;
    }

    public ValueTask<DiskExtent> GetExtentAsync(long offset, long bytes) => new(new DiskExtent(bytes, DiskExtentState.Data, HostOffset: null));

    public async ValueTask ReadAsync(long offset, Memory<byte> buffer)
    {
        int inside = (int)Math.Clamp(VirtualBytes - offset, 0, buffer.Length);
        buffer.Span[inside..].Clear();
        using RequestGate.Ticket ticket = await _gate.EnterSharedAsync();
        await InPartsAsync(offset, inside, (at, done, part) => ReadPartAsync(at, buffer.Slice(done, part)));
    }

    public async ValueTask WriteAsync(long offset, ReadOnlyMemory<byte> data, bool fua = false)
    {
        ThrowIfUnwritable(offset, data.Length);
        bool isWhole = ((offset | (uint)data.Length) & SectorMask) == 0;
        using (RequestGate.Ticket ticket = isWhole ? await _gate.EnterSharedAsync() : await _gate.EnterExclusiveAsync())
            await InPartsAsync(offset, data.Length, (at, done, part) => WritePartAsync(at, data.Slice(done, part)));
        if (fua)
            await FlushAsync();
    }

    /// <summary>Zeros are encrypted and written: a hole reads as anything.</summary>
    public async ValueTask WriteZeroesAsync(long offset, long bytes, bool mayUnmap, bool fua = false)
    {
        ThrowIfUnwritable(offset, bytes);
        for (long done = 0; done < bytes;)
        {
            int part = (int)Math.Min(bytes - done, _zeros.Length - ((offset + done) % _zeros.Length));
            await WriteAsync(offset + done, _zeros[..part]);
            done += part;
        }
        if (fua)
            await FlushAsync();
    }

    /// <summary>Does nothing: what is given up could not read as zeros.</summary>
    public ValueTask DiscardAsync(long offset, long bytes, bool fua = false)
    {
        ThrowIfUnwritable(offset, bytes);
        return fua ? FlushAsync() : ValueTask.CompletedTask;
    }

    public ValueTask FlushAsync() => IsReadOnly ? ValueTask.CompletedTask : _file.FlushAsync();

    public Task ResizeAsync(long virtualBytes) => ResizeAsync(virtualBytes, Preallocation.Off);

    /// <summary>Makes the disk larger or smaller. What is new reads as anything.</summary>
    /// <param name="virtualBytes">The new size, rounded up to whole sectors of 512 bytes.</param>
    /// <param name="preallocation">Whether the host keeps space ready for the new part: off, falloc or full.</param>
    public async Task ResizeAsync(long virtualBytes, Preallocation preallocation)
    {
        if (virtualBytes > long.MaxValue - SectorMask - _start)
            throw new Qcow2Exception("The requested file size is too large");
        using RequestGate.Ticket ticket = await _gate.EnterExclusiveAsync();
        await new RawImage(_file).ResizeAsync(_start + virtualBytes, preallocation);
    }

    public async ValueTask DisposeAsync()
    {
        using (RequestGate.Ticket ticket = await _gate.EnterExclusiveAsync())
            _cipher.Dispose();
        await _file.DisposeAsync();
    }

    private async ValueTask WriteMarkAsync(LuksKeys keys)
    {
        await _file.WriteAsync(0, keys.Area[..LuksHeader.HeaderBytes]);
        await _file.FlushAsync();
    }

    /// <summary>Parts meet at multiples of their length, so that they are whole sectors but at the ends.</summary>
    private static async ValueTask InPartsAsync(long offset, int bytes, Func<long, int, int, ValueTask> run)
    {
        for (int done = 0; done < bytes;)
        {
            int part = (int)Math.Min(bytes - done, MaxPartBytes - ((offset + done) % MaxPartBytes));
            await run(offset + done, done, part);
            done += part;
        }
    }

    private async ValueTask ReadPartAsync(long offset, Memory<byte> buffer)
    {
        (long start, int bytes) = RoundOut(offset, buffer.Length);
        byte[] sectors = ArrayPool<byte>.Shared.Rent(bytes);
        try
        {
            await ReadSectorsAsync(start, sectors.AsMemory(0, bytes));
            sectors.AsMemory((int)(offset - start), buffer.Length).CopyTo(buffer);
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(sectors, clearArray: true);
        }
    }

    private async ValueTask WritePartAsync(long offset, ReadOnlyMemory<byte> data)
    {
        (long start, int bytes) = RoundOut(offset, data.Length);
        byte[] rented = ArrayPool<byte>.Shared.Rent(bytes);
        try
        {
            Memory<byte> sectors = rented.AsMemory(0, bytes);
            if (bytes > data.Length)
            {
                await ReadSectorsAsync(start, sectors[..SectorBytes]);
                await ReadSectorsAsync(start + bytes - SectorBytes, sectors[^SectorBytes..]);
            }
            data.CopyTo(sectors[(int)(offset - start)..]);
            _cipher.Encrypt(sectors.Span, (ulong)start / SectorBytes);
            await _file.WriteAsync(_start + start, sectors);
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(rented, clearArray: true);
        }
    }

    private async ValueTask ReadSectorsAsync(long start, Memory<byte> sectors)
    {
        await _file.ReadAsync(_start + start, sectors);
        _cipher.Decrypt(sectors.Span, (ulong)start / SectorBytes);
    }

    private static (long Start, int Bytes) RoundOut(long offset, int bytes)
    {
        long start = offset & ~(long)SectorMask;
        return (start, (int)(((offset + bytes + SectorMask) & ~(long)SectorMask) - start));
    }

    private void ThrowIfUnwritable(long offset, long bytes)
    {
        if (IsReadOnly)
            throw new Qcow2Exception($"'{FileName}' is open read-only");
        if (offset < 0 || bytes < 0 || offset > VirtualBytes - bytes)
            throw new ArgumentOutOfRangeException(nameof(offset), $"{bytes} bytes at {offset} are not inside the disk of {VirtualBytes} bytes");
    }
}
