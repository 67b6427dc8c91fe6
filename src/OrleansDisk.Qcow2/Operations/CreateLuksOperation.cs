using OrleansDisk.Qcow2.Crypto;
using OrleansDisk.Qcow2.Data;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Qcow2.Operations;

/// <summary>Makes new LUKS images, those that are not in qcow2.</summary>
public static class CreateLuksOperation
{
    /// <summary>Makes the file of that name one encrypted disk, replacing what it held. What the disk then reads as is not defined.</summary>
    /// <param name="path">The file.</param>
    /// <param name="virtualBytes">Size of the disk; it is rounded up to whole sectors.</param>
    /// <param name="encryption">Its cipher and its first password.</param>
    /// <param name="preallocation">Whether the host keeps space ready: off, falloc or full.</param>
    /// <exception cref="Qcow2Exception">It can't be had; the file is untouched then.</exception>
    public static async Task CreateAsync(string path, long virtualBytes, NewEncryption encryption, Preallocation preallocation)
    {
        if (encryption.Method != EncryptionMethod.Luks)
            throw new ArgumentException("LUKS is all that there is", nameof(encryption));
        encryption.Cipher.Validate();
        using LuksKeys keys = encryption.CreateKeys()!;
        if (virtualBytes > long.MaxValue - SectorCipher.SectorBytes - keys.Area.Length)
            throw new Qcow2Exception("The requested file size is too large");
        await using var file = new RawImage(LocalBlockFile.Create(path));
        await file.ResizeAsync(keys.Area.Length + virtualBytes, preallocation);
        await file.WriteAsync(0, keys.Area, fua: true);
    }
}
