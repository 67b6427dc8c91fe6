using OrleansDisk.Qcow2.Crypto;
using OrleansDisk.Simulation.Model;

namespace OrleansDisk.Simulation.Crash;

/// <summary>What the sectors of an image file hold for the guest: with a cipher, what they decrypt to.</summary>
/// <param name="cipher">The image's cipher, or null.</param>
/// <param name="countsHostSectors">Whether it counts sectors in the file, else on the disk.</param>
/// <param name="firstSector">Where the file with guest data begins, in sectors.</param>
internal sealed class StoredSectors(SectorCipher? cipher, bool countsHostSectors, int firstSector = 0)
{
    /// <summary>The content of a sector of the disk in a state.</summary>
    /// <param name="writes">The writes of the barrier.</param>
    /// <param name="state">Which of them the file holds.</param>
    /// <param name="sector">Number of the sector on the disk.</param>
    /// <param name="inFile">Number of the sector in the file.</param>
    public long ContentOf(UnflushedWrites writes, CrashState state, int sector, int inFile)
    {
        if (cipher is null)
            return writes.ContentOf(state, inFile);
        Span<byte> bytes = stackalloc byte[SectorContent.Bytes];
        writes.Read(state, (long)inFile * SectorContent.Bytes, bytes);
        cipher.Decrypt(bytes, (ulong)(countsHostSectors ? inFile - firstSector : sector));
        return SectorContent.Parse(bytes);
    }
}
