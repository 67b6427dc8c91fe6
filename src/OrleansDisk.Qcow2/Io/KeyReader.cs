using OrleansDisk.Qcow2.Crypto;
using OrleansDisk.Qcow2.Format;

namespace OrleansDisk.Qcow2.Io;

/// <summary>Reads the keys of an image that LUKS encrypts.</summary>
public static class KeyReader
{
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
