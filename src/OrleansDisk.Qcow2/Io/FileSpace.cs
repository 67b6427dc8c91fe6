using System.Runtime.InteropServices;

namespace OrleansDisk.Qcow2.Io;

/// <summary>The space that a file takes on its file system.</summary>
public static unsafe class FileSpace
{
    private const int CurrentDirectory = -100;
    private const uint BlocksWanted = 0x400;
    private const int BlockBytes = 512;
    private const int StatusBytes = 256;
    private const int BlocksOffset = 48;

    /// <summary>Allocated bytes of a file, or null when the system can't tell.</summary>
    public static long? AllocatedBytes(string path)
    {
        // statx, and not stat, since its result has the same layout on every processor.
        byte* status = stackalloc byte[StatusBytes];
        return LibC.ExtendedStatus(CurrentDirectory, path, 0, BlocksWanted, status) == 0
            ? Marshal.ReadInt64((nint)status, BlocksOffset) * BlockBytes : null;
    }
}
