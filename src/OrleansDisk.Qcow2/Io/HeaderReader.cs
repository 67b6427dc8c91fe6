using OrleansDisk.Qcow2.Crypto;
using OrleansDisk.Qcow2.Format;

namespace OrleansDisk.Qcow2.Io;

/// <summary>Reads an image's header from its file.</summary>
public static class HeaderReader
{
    /// <summary>Enough for a header with its usual extensions, so that one read mostly does.</summary>
    private const int FirstReadBytes = 4096;

    /// <summary>"qcow2" or "luks" when the file begins as such an image does, else "raw".</summary>
    public static async ValueTask<string> ProbeFormatAsync(IBlockFile file)
    {
        byte[] start = new byte[8];
        await file.ReadAsync(0, start);
        return Header.Probe(start) ? "qcow2" : LuksHeader.Probe(start) ? "luks" : "raw";
    }

    /// <exception cref="Qcow2FormatException">The file is no qcow2 image, or its header breaks the specification.</exception>
    public static async ValueTask<Header> ReadAsync(IBlockFile file) => Header.Parse(await ReadClusterAsync(file));

    /// <summary>The same for a checker, which looks at the refcount and snapshot tables itself.</summary>
    /// <exception cref="Qcow2FormatException">The file is no qcow2 image, or its header breaks the specification elsewhere.</exception>
    public static async ValueTask<Header> ReadForCheckAsync(IBlockFile file) => Header.Parse(await ReadClusterAsync(file), isForCheck: true);

    private static async ValueTask<byte[]> ReadClusterAsync(IBlockFile file)
    {
        byte[] cluster = new byte[FirstReadBytes];
        await file.ReadAsync(0, cluster);
        int clusterBytes = Header.ParseClusterBytes(cluster);
        if (clusterBytes > cluster.Length)
        {
            cluster = new byte[clusterBytes];
            await file.ReadAsync(0, cluster);
        }
        return cluster;
    }
}
