using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Qcow2.Data;

/// <summary>A raw file as a disk: what lies below an image, or a disk of its own.</summary>
public sealed class RawImage(IBlockFile file) : IWritableDisk
{
    private const int SectorBytes = 512;

    /// <summary>Zeros that are written where the file can't have a hole.</summary>
    private static readonly ReadOnlyMemory<byte> _zeros = new byte[256 << 10];

    private bool _canPunchHoles = true;

    private IBlockFile File => file;

    public string FileName => file.Name;

    public string Format => "raw";

    public long VirtualBytes => file.LengthBytes;

    public bool IsReadOnly => file.IsReadOnly;

    /// <summary>Whether it is a block device, whose size is what it is.</summary>
    public bool IsDevice => file.IsDevice;

    public IDiskSource? Backing => null;

    public ValueTask ReadAsync(long offset, Memory<byte> buffer) => file.ReadAsync(offset, buffer);

    /// <summary>Fills the buffer on the caller's thread, which may be any; see <see cref="IBlockFile.TryRead"/>.</summary>
    internal bool TryRead(long offset, Span<byte> buffer) => file.TryRead(offset, buffer);

    /// <summary>Has the host copy a range of another raw file to the same place; see <see cref="IBlockFile.TryCopyAsync"/>.</summary>
    internal ValueTask<bool> TryCopyAsync(RawImage source, long offset, long bytes) => file.TryCopyAsync(source.File, offset, offset, bytes);

    public ValueTask<DiskExtent> GetExtentAsync(long offset, long bytes)
    {
        FileExtent extent = file.GetExtent(offset, offset + bytes);
        DiskExtentState state = extent.IsData ? DiskExtentState.Data : DiskExtentState.Zero;
        return new ValueTask<DiskExtent>(new DiskExtent(extent.Bytes, state, offset));
    }

    public ValueTask WriteAsync(long offset, ReadOnlyMemory<byte> data, bool fua = false)
    {
        ThrowIfOutside(offset, data.Length);
        ValueTask write = file.WriteAsync(offset, data);
        return fua ? ThenFlushAsync(write) : write;
    }

    public ValueTask WriteZeroesAsync(long offset, long bytes, bool mayUnmap, bool fua = false)
    {
        ThrowIfOutside(offset, bytes);
        ValueTask change = ZeroAsync(offset, bytes, mayUnmap);
        return fua ? ThenFlushAsync(change) : change;
    }

    public ValueTask DiscardAsync(long offset, long bytes, bool fua = false)
    {
        ThrowIfOutside(offset, bytes);
        ValueTask change = PunchAsync(offset, bytes);
        return fua ? ThenFlushAsync(change) : change;
    }

    public ValueTask FlushAsync() => IsReadOnly ? ValueTask.CompletedTask : file.FlushAsync();

    public Task ResizeAsync(long virtualBytes) => ResizeAsync(virtualBytes, Preallocation.Off);

    /// <summary>Makes the disk larger or smaller.</summary>
    /// <param name="virtualBytes">The new size, rounded up to whole sectors of 512 bytes.</param>
    /// <param name="preallocation">Whether the host keeps space ready for the new part: off, falloc or full.</param>
    /// <exception cref="Qcow2Exception">A raw file has no metadata to preallocate.</exception>
    public async Task ResizeAsync(long virtualBytes, Preallocation preallocation)
    {
        if (preallocation == Preallocation.Metadata)
            throw new Qcow2Exception("Unsupported preallocation mode 'metadata'");
        if (IsReadOnly)
            throw new Qcow2Exception($"'{FileName}' is open read-only");
        virtualBytes = (virtualBytes + SectorBytes - 1) & ~(SectorBytes - 1L);
        long oldBytes = VirtualBytes;
        if (IsDevice)
        {
            FilePreallocation.EnsurePossible(file, preallocation);
            if (virtualBytes != oldBytes)
                throw new Qcow2Exception("Cannot resize device files");
            return;
        }
        if (virtualBytes < oldBytes || preallocation == Preallocation.Off)
        {
            await file.SetLengthAsync(virtualBytes);
            return;
        }
        try
        {
            await FilePreallocation.RunAsync(file, oldBytes, virtualBytes - oldBytes, preallocation);
        }
        catch (BlockFileException)
        {
            await file.SetLengthAsync(oldBytes); // what was taken goes back
            throw;
        }
    }

    /// <summary>Prepares a new disk on a file that was just made or emptied; a device may be larger, and what it held goes on showing.</summary>
    /// <param name="virtualBytes">The size, rounded up to whole sectors of 512 bytes.</param>
    /// <param name="preallocation">Whether the host keeps space ready: off, falloc or full.</param>
    /// <exception cref="Qcow2Exception">A device is too small, or keeps no space ready.</exception>
    public async Task FormatAsync(long virtualBytes, Preallocation preallocation)
    {
        if (!IsDevice)
        {
            await ResizeAsync(virtualBytes, preallocation);
            return;
        }
        if (preallocation != Preallocation.Off)
            throw new Qcow2Exception($"Unsupported preallocation mode '{preallocation.ToString().ToLowerInvariant()}'");
        if (virtualBytes > VirtualBytes)
            throw new Qcow2Exception("Cannot grow device files");
        await file.WriteAsync(0, new byte[Math.Min(SectorBytes, VirtualBytes)]); // what was a header is none any more
    }

    public ValueTask DisposeAsync() => file.DisposeAsync();

    private async ValueTask ThenFlushAsync(ValueTask change)
    {
        await change;
        await FlushAsync();
    }

    private async ValueTask ZeroAsync(long offset, long bytes, bool mayUnmap)
    {
        if (mayUnmap)
        {
            await PunchAsync(offset, bytes);
            if (_canPunchHoles)
                return;
        }
        for (long done = 0; done < bytes;)
        {
            // Parts meet at multiples of their length: a crash between two of them tears no sector.
            int part = (int)Math.Min(bytes - done, _zeros.Length - ((offset + done) % _zeros.Length));
            await file.WriteAsync(offset + done, _zeros[..part]);
            done += part;
        }
    }

    private async ValueTask PunchAsync(long offset, long bytes)
    {
        if (_canPunchHoles && bytes > 0)
            _canPunchHoles = await file.PunchHoleAsync(offset, bytes);
    }

    private void ThrowIfOutside(long offset, long bytes)
    {
        if (IsReadOnly)
            throw new Qcow2Exception($"'{FileName}' is open read-only");
        // A disk has whole sectors, whatever its file ends with.
        long end = (VirtualBytes + SectorBytes - 1) & ~(SectorBytes - 1L);
        if (offset < 0 || bytes < 0 || offset > end - bytes)
            throw new ArgumentOutOfRangeException(nameof(offset), $"{bytes} bytes at {offset} are not inside the disk of {VirtualBytes} bytes");
    }
}
