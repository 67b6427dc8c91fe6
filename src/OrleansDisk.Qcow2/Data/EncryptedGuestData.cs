using System.Buffers;
using OrleansDisk.Qcow2.Crypto;
using OrleansDisk.Qcow2.Format;

namespace OrleansDisk.Qcow2.Data;

/// <summary>
/// Guest data of an encrypted image. What is written are whole sectors: who has less takes the rest from what is there
/// (<see cref="Qcow2Image"/> does). Reads have any alignment.
/// </summary>
/// <param name="stored">Where the encrypted bytes lie.</param>
/// <param name="cipher">Encrypts and decrypts them.</param>
/// <param name="countsHostSectors">Whether sectors have their number in the file (LUKS), or in the disk (legacy AES).</param>
internal sealed class EncryptedGuestData(GuestData stored, SectorCipher cipher, bool countsHostSectors) : GuestData
{
    private const int SectorMask = SectorCipher.SectorBytes - 1;

    /// <summary>Zeros in the file are not zeros of the disk.</summary>
    public override bool FreshClustersAreZero => false;

    public override int WriteUnitBytes => SectorCipher.SectorBytes;

    public override ValueTask ReadAsync(GuestOffset guest, HostOffset host, Memory<byte> buffer)
    {
        if (!IsWhole(guest, buffer.Length))
            return ReadPartsAsync(guest, host, buffer);
        ValueTask read = stored.ReadAsync(guest, host, buffer);
        if (!read.IsCompletedSuccessfully)
            return DecryptWhenReadAsync(read, guest, host, buffer);
        cipher.Decrypt(buffer.Span, SectorOf(guest, host));
        return ValueTask.CompletedTask;
    }

    public override ValueTask WriteAsync(GuestOffset guest, HostOffset host, ReadOnlyMemory<byte> data)
    {
        byte[] encrypted = ArrayPool<byte>.Shared.Rent(data.Length);
        data.Span.CopyTo(encrypted);
        return WriteEncryptedAsync(guest, host, encrypted, data.Length);
    }

    public override ValueTask WriteAsync(GuestOffset guest, HostOffset host, IReadOnlyList<ReadOnlyMemory<byte>> pieces)
    {
        int bytes = 0;
        foreach (ReadOnlyMemory<byte> piece in pieces)
            bytes += piece.Length;
        byte[] encrypted = ArrayPool<byte>.Shared.Rent(bytes);
        int at = 0;
        foreach (ReadOnlyMemory<byte> piece in pieces)
        {
            piece.Span.CopyTo(encrypted.AsSpan(at));
            at += piece.Length;
        }
        return WriteEncryptedAsync(guest, host, encrypted, bytes);
    }

    public override bool TryRead(GuestOffset guest, HostOffset host, Span<byte> buffer)
    {
        if (IsWhole(guest, buffer.Length))
        {
            if (!stored.TryRead(guest, host, buffer))
                return false;
            cipher.Decrypt(buffer, SectorOf(guest, host));
            return true;
        }
        (int skip, int bytes) = RoundOut(guest, buffer.Length);
        byte[] sectors = ArrayPool<byte>.Shared.Rent(bytes);
        bool isRead = TryRead(guest + -skip, host + -skip, sectors.AsSpan(0, bytes));
        if (isRead)
            sectors.AsSpan(skip, buffer.Length).CopyTo(buffer);
        ArrayPool<byte>.Shared.Return(sectors);
        return isRead;
    }

    public override void Write(GuestOffset guest, HostOffset host, ReadOnlySpan<byte> data)
    {
        byte[] encrypted = ArrayPool<byte>.Shared.Rent(data.Length);
        try
        {
            Span<byte> sectors = encrypted.AsSpan(0, data.Length);
            data.CopyTo(sectors);
            cipher.Encrypt(sectors, SectorOf(guest, host));
            stored.Write(guest, host, sectors);
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(encrypted);
        }
    }

    private async ValueTask DecryptWhenReadAsync(ValueTask read, GuestOffset guest, HostOffset host, Memory<byte> buffer)
    {
        await read;
        cipher.Decrypt(buffer.Span, SectorOf(guest, host));
    }

    private async ValueTask ReadPartsAsync(GuestOffset guest, HostOffset host, Memory<byte> buffer)
    {
        (int skip, int bytes) = RoundOut(guest, buffer.Length);
        byte[] sectors = ArrayPool<byte>.Shared.Rent(bytes);
        try
        {
            await ReadAsync(guest + -skip, host + -skip, sectors.AsMemory(0, bytes));
            sectors.AsMemory(skip, buffer.Length).CopyTo(buffer);
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(sectors);
        }
    }

    /// <summary>Encrypts the start of a rented array in place, writes it, and gives the array back.</summary>
    private ValueTask WriteEncryptedAsync(GuestOffset guest, HostOffset host, byte[] rented, int bytes)
    {
        cipher.Encrypt(rented.AsSpan(0, bytes), SectorOf(guest, host));
        ValueTask write = stored.WriteAsync(guest, host, rented.AsMemory(0, bytes));
        if (!write.IsCompletedSuccessfully)
            return ReturnWhenWrittenAsync(write, rented);
        ArrayPool<byte>.Shared.Return(rented);
        return ValueTask.CompletedTask;
    }

    private static async ValueTask ReturnWhenWrittenAsync(ValueTask write, byte[] rented)
    {
        try
        {
            await write;
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(rented);
        }
    }

    private ulong SectorOf(GuestOffset guest, HostOffset host) =>
        (ulong)(countsHostSectors ? host.Bytes : guest.Bytes) / SectorCipher.SectorBytes;

    private static bool IsWhole(GuestOffset guest, int bytes) => ((guest.Bytes | (uint)bytes) & SectorMask) == 0;

    /// <summary>How many bytes lie before a range in its first sector, and how long all its sectors are.</summary>
    private static (int Skip, int Bytes) RoundOut(GuestOffset guest, int bytes)
    {
        int skip = (int)(guest.Bytes & SectorMask);
        return (skip, (skip + bytes + SectorMask) & ~SectorMask);
    }
}
