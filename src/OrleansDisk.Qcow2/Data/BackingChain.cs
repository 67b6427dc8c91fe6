using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Qcow2.Data;

/// <summary>Opens what an image says lies below it.</summary>
internal static class BackingChain
{
    /// <summary>Deeper chains are refused: they are loops or attacks.</summary>
    private const int MaxDepth = 200;

    /// <summary>
    /// The path of a backing file: relative names start from the overlay's directory. Names with a protocol are refused,
    /// since an image must not make us open what its owner did not mean.
    /// </summary>
    /// <exception cref="Qcow2UnsupportedException">The name is not that of a file.</exception>
    public static string ResolvePath(string overlayPath, string name)
    {
        if (name.StartsWith("file:", StringComparison.Ordinal))
            name = name["file:".Length..];
        if (HasProtocol(name))
        {
            throw new Qcow2UnsupportedException($"the backing file name '{name}' (a protocol, not a file)",
                "point the image to a file with qemu-img rebase -u -b FILE -F FORMAT");
        }
        return Path.Combine(Path.GetDirectoryName(overlayPath) ?? "", name);
    }

    /// <summary>Whether a name begins with a protocol, as QEMU sees it: a colon before any slash.</summary>
    public static bool HasProtocol(string name)
    {
        int colon = name.IndexOf(':', StringComparison.Ordinal);
        int slash = name.IndexOf('/', StringComparison.Ordinal);
        return colon > 0 && (slash < 0 || colon < slash);
    }

    /// <summary>Whether entries alone say that a range of a disk, or of nothing, reads as zeros.</summary>
    public static async ValueTask<bool> ReadsAsZerosAsync(IDiskSource? disk, long start, long end)
    {
        while (disk is not null && start < Math.Min(end, disk.VirtualBytes))
        {
            DiskExtent extent = await disk.GetExtentAsync(start, Math.Min(end, disk.VirtualBytes) - start);
            long stop = start + extent.Bytes;
            if (extent.State == DiskExtentState.Data)
                return false;
            if (extent.State == DiskExtentState.Unallocated && !await ReadsAsZerosAsync(disk.Backing, start, stop))
                return false;
            start = stop;
        }
        return true;
    }

    /// <summary>Opens the backing file of an image and everything below it, for reading.</summary>
    /// <exception cref="Qcow2Exception">A file of the chain can't be had; the message names it.</exception>
    public static async Task<IDiskSource?> OpenAsync(
        string overlayPath, Header overlay, Qcow2OpenOptions overlayOptions, IReadOnlyList<string> above)
    {
        if (overlay.BackingFile is null)
            return null;
        string path = ResolvePath(overlayPath, overlay.BackingFile);
        above = [.. above, Path.GetFullPath(overlayPath)];
        // Looked for before the file is opened: the lock that its overlay holds would be the error otherwise.
        if (above.Contains(Path.GetFullPath(path)) || above.Count > MaxDepth)
        {
            throw new BackingFileException(
                $"The backing chain of '{above[0]}' comes to '{path}' again, or is deeper than {MaxDepth} images: it is a loop; "
                + "break it with qemu-img rebase -u", inner: null);
        }
        ImageAccess access = overlayOptions.Access == ImageAccess.ReadShared ? ImageAccess.ReadShared : ImageAccess.Read;
        try
        {
            IBlockFile file = overlayOptions.OpenFile(path, access);
            try
            {
                Qcow2OpenOptions options = overlayOptions with
                {
                    Access = access,
                    Snapshot = null,
                    DataFile = null,
                    Secret = null,
                    EncryptionFormat = null,
                    KeepDiscardedClusters = false,
                };
                return await OpenAsync(file, overlay.BackingFormat, options, above);
            }
            catch
            {
                await file.DisposeAsync();
                throw;
            }
        }
        catch (IOException e) when (e is not ImageLockedException and not BackingFileException)
        {
            throw new BackingFileException($"Could not open backing file: {e.Message}", e);
        }
    }

    private static async Task<IDiskSource> OpenAsync(
        IBlockFile file, string? format, Qcow2OpenOptions options, IReadOnlyList<string> above)
    {
        format ??= await HeaderReader.ProbeFormatAsync(file);
        return format switch
        {
            "raw" or "file" => new RawImage(file),
            "qcow2" => await Qcow2Image.OpenAsync(file, options, above),
            "luks" => await LuksImage.OpenAsync(file, secret: null), // an image can't name one; whoever has one opens the disk
            _ => throw new Qcow2Exception($"Unknown driver '{format}'"),
        };
    }
}

/// <summary>A file of a backing chain can't be had; the message says it once, however deep the file lies.</summary>
internal sealed class BackingFileException(string message, Exception? inner) : Qcow2Exception(message, inner);
