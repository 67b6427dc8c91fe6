using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Qcow2.Metadata;

namespace OrleansDisk.Qcow2.Data;

/// <summary>
/// Zeros in an external data file that is a raw image by itself: they lie in the file, and entries go on leading to it.
/// </summary>
internal sealed class RawDataZeroes(ImageMetadata metadata, GuestWriter writer)
{
    private bool _canPunchHoles = true;

    /// <summary>Makes a range inside the disk read as zeros, with and without the metadata. The caller is inside the gate.</summary>
    /// <param name="offset">First byte.</param>
    /// <param name="bytes">Length of the range.</param>
    /// <param name="mayUnmap">Whether the file's space may go back to the host.</param>
    public async ValueTask ZeroAsync(GuestOffset offset, long bytes, bool mayUnmap)
    {
        while (bytes > 0)
        {
            ClusterRun run = await FindAsync(offset, bytes);
            if (!(mayUnmap && run.IsWritableInPlace && await TryPunchAsync(run)))
                await writer.WriteZeroesAsync(offset, run.Bytes);
            offset += run.Bytes;
            bytes -= run.Bytes;
        }
    }

    private async ValueTask<ClusterRun> FindAsync(GuestOffset offset, long bytes)
    {
        using TablePin pin = await metadata.L2Tables.PinForChangeAsync(metadata.Geometry.ClusterOf(offset));
        return ClusterRun.Find(pin.Table, offset, bytes, metadata.Header);
    }

    /// <summary>Entries of a raw data file lead to it for good, so a run that was found stays one.</summary>
    private async ValueTask<bool> TryPunchAsync(ClusterRun run)
    {
        if (!_canPunchHoles || metadata.Header.Encryption != EncryptionMethod.None)
            return false;
        try
        {
            return _canPunchHoles = await metadata.DataFile.PunchHoleAsync(run.Start.Bytes, run.Bytes);
        }
        catch (BlockFileException)
        {
            return false;
        }
        finally
        {
            metadata.Order.NoteDataWritten();
        }
    }
}
