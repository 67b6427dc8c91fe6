using OrleansDisk.Qcow2.Crypto;
using OrleansDisk.Qcow2.Data;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Qcow2.Operations;

/// <summary>The facts of an image that need nothing but its header and its lists of snapshots and bitmaps.</summary>
public sealed record ImageInfo
{
    /// <summary>The name by which the file was opened.</summary>
    public required string FileName { get; init; }

    /// <summary>"qcow2", "luks" or "raw".</summary>
    public required string Format { get; init; }

    /// <summary>Size of the disk in bytes, whole sectors.</summary>
    public required long VirtualBytes { get; init; }

    /// <summary>Bytes that the file takes on its file system, or null when that is not known.</summary>
    public long? AllocatedBytes { get; init; }

    /// <summary>The header; null for what is not qcow2.</summary>
    public Header? Header { get; init; }

    public IReadOnlyList<SnapshotEntry> Snapshots { get; init; } = [];

    public IReadOnlyList<BitmapEntry> Bitmaps { get; init; } = [];

    /// <summary>The LUKS header of an image that has one with a cipher that is known here; else null.</summary>
    public LuksHeader? Luks { get; init; }

    /// <summary>Where the backing file is, seen from where this file was opened; null when there is none.</summary>
    public string? BackingPath =>
        Header?.BackingFile is { } name ? ResolveBackingFile(FileName, name) : null;

    /// <summary>A backing file's name as seen from the overlay: relative names start at the overlay's directory.</summary>
    public static string ResolveBackingFile(string overlayPath, string name) =>
        BackingChain.HasProtocol(name) ? name : Path.Combine(Path.GetDirectoryName(overlayPath) ?? "", name);

    /// <summary>Opens a file, reads its facts, closes it.</summary>
    /// <param name="path">The file.</param>
    /// <param name="format">"qcow2", "luks", "raw", or null to find out.</param>
    /// <param name="access">Read, or ReadShared for an image that someone is writing.</param>
    /// <exception cref="Qcow2Exception">It can't be opened, or is no image of that format.</exception>
    public static async Task<ImageInfo> ReadAsync(string path, string? format, ImageAccess access)
    {
        await using var file = LocalBlockFile.Open(path, access);
        return await ReadAsync(file, format) with { AllocatedBytes = FileSpace.AllocatedBytes(path) };
    }

    /// <summary>Reads the facts of a file that is open.</summary>
    /// <exception cref="Qcow2Exception">It is no image of that format.</exception>
    public static async Task<ImageInfo> ReadAsync(IBlockFile file, string? format)
    {
        format ??= await HeaderReader.ProbeFormatAsync(file);
        return format switch
        {
            "qcow2" => await ReadQcow2Async(file),
            "luks" => await ReadPlainLuksAsync(file),
            "raw" => new ImageInfo { FileName = file.Name, Format = "raw", VirtualBytes = RoundUp(file.LengthBytes) },
            _ => throw new Qcow2Exception($"Unknown driver '{format}'"),
        };
    }

    private static async Task<ImageInfo> ReadQcow2Async(IBlockFile file)
    {
        Header header = await HeaderReader.ReadAsync(file);
        return new ImageInfo
        {
            FileName = file.Name,
            Format = "qcow2",
            VirtualBytes = header.DiskBytes,
            Header = header,
            Snapshots = await DirectoryReader.ReadSnapshotsAsync(file, header),
            Bitmaps = await DirectoryReader.ReadBitmapsAsync(file, header),
            Luks = await ReadLuksAsync(file, header),
        };
    }

    private static async Task<ImageInfo> ReadPlainLuksAsync(IBlockFile file)
    {
        using LuksKeys keys = await KeyReader.ReadAsync(file);
        return new ImageInfo
        {
            FileName = file.Name,
            Format = "luks",
            VirtualBytes = RoundUp(file.LengthBytes - keys.Area.Length),
            Luks = keys.Header,
        };
    }

    private static async Task<LuksHeader?> ReadLuksAsync(IBlockFile file, Header header)
    {
        if (header.Encryption != EncryptionMethod.Luks || header.Find(HeaderExtensionType.Encryption) is null)
            return null;
        try
        {
            using LuksKeys keys = await KeyReader.ReadAsync(file, header);
            return keys.Header;
        }
        catch (Qcow2UnsupportedException)
        {
            return null; // all other facts are as good as ever
        }
    }

    private static long RoundUp(long bytes) => (bytes + 511) & ~511L;
}
