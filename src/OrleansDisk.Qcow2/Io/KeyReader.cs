using OrleansDisk.Qcow2.Crypto;
using OrleansDisk.Qcow2.Format;

namespace OrleansDisk.Qcow2.Io;

/// <summary>Reads the keys of an image that LUKS encrypts.</summary>
public static class KeyReader
{
    /// <summary>More than the key material of any cipher takes; what claims more is damaged.</summary>
    private const int MaxAreaBytes = 64 << 20;

    /// <summary>The LUKS header of a file that is one encrypted disk; nothing is unlocked yet.</summary>
    /// <exception cref="Qcow2FormatException">It is not there, or is damaged.</exception>
    /// <exception cref="Qcow2UnsupportedException">It names a cipher or a hash that is not known here.</exception>
    public static async Task<LuksKeys> ReadAsync(IBlockFile file)
    {
        byte[] area = new byte[LuksHeader.HeaderBytes];
        await file.ReadAsync(0, area);
        if (LuksHeader.Probe(area))
        {
            long bytes = LuksHeader.PayloadBytesOf(area);
            if (bytes is < LuksHeader.HeaderBytes or > MaxAreaBytes || bytes > file.LengthBytes)
            {
                throw new Qcow2FormatException($"LUKS payload of '{file.Name}' is overlapping with the header, or past the end of the file: "
                    + $"it is said to begin at byte {bytes}");
            }
            area = new byte[bytes];
            await file.ReadAsync(0, area);
        }
        return LuksKeys.Parse(area);
    }

    /// <summary>The LUKS header with its key material; nothing is unlocked yet.</summary>
    /// <exception cref="Qcow2FormatException">It is not there, or is damaged.</exception>
    /// <exception cref="Qcow2UnsupportedException">It names a cipher or a hash that is not known here.</exception>
    public static async Task<LuksKeys> ReadAsync(IBlockFile file, Header header)
    {
        var place = EncryptionHeader.Of(header);
        if (place.Start.Bytes > file.LengthBytes - place.Bytes)
            throw new Qcow2FormatException("Could not read encryption header: the file ends before it does");
        byte[] area = new byte[place.Bytes];
        await file.ReadAsync(place.Start.Bytes, area);
        return LuksKeys.Parse(area);
    }
}
