namespace OrleansDisk.Qcow2.Io;

/// <summary>Takes space for parts of a file before anything is written there.</summary>
public static class FilePreallocation
{
    private static readonly ReadOnlyMemory<byte> _zeros = new byte[1 << 20];

    /// <summary>Prepares a range to which nothing was written; the file then reaches at least to its end.</summary>
    /// <exception cref="BlockFileException">There is no space; what was taken stays taken.</exception>
    public static async ValueTask RunAsync(IBlockFile file, long offset, long bytes, Preallocation preallocation)
    {
        EnsurePossible(file, preallocation);
        if (preallocation == Preallocation.Falloc && bytes > 0)
            await file.AllocateAsync(offset, bytes);
        else if (preallocation == Preallocation.Full)
            await WriteZerosAsync(file, offset, bytes);
        if (file.LengthBytes < offset + bytes)
            await file.SetLengthAsync(offset + bytes);
    }

    /// <summary>Space can be taken in files only: a block device has it, with old bytes in it.</summary>
    /// <exception cref="Qcow2Exception">It is a block device.</exception>
    internal static void EnsurePossible(IBlockFile file, Preallocation preallocation)
    {
        if (file.IsDevice && preallocation != Preallocation.Off)
            throw new Qcow2Exception($"Preallocation mode '{preallocation.ToString().ToLowerInvariant()}' unsupported for this non-regular file");
    }

    internal static async ValueTask WriteZerosAsync(IBlockFile file, long offset, long bytes)
    {
        for (long done = 0; done < bytes; done += _zeros.Length)
            await file.WriteAsync(offset + done, _zeros[..(int)Math.Min(_zeros.Length, bytes - done)]);
    }
}
