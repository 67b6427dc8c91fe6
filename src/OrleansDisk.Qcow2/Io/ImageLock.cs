using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;

namespace OrleansDisk.Qcow2.Io;

/// <summary>What a handle wants of an image that others may use too.</summary>
public enum ImageAccess
{
    /// <summary>Reading, while nobody writes.</summary>
    Read,

    /// <summary>Reading whoever writes: what is read may be inconsistent (qemu-img's -U).</summary>
    ReadShared,

    /// <summary>Reading and writing, while nobody else writes or reads for good.</summary>
    Write,
}

/// <summary>
/// QEMU's image locks: byte 100+n is held by who uses permission n, byte 200+n by who does not share it, with
/// n = 0 consistent read, 1 write, 3 resize. All are shared locks of the open file description (F_OFD_SETLK), so they
/// go with the handle; a conflict is found by asking whether an exclusive lock could be placed.
/// </summary>
internal static unsafe class ImageLock
{
    private const int UsedBase = 100;
    private const int UnsharedBase = 200;
    private const int ConsistentRead = 0;
    private const int Write = 1;
    private const int Resize = 3;

    private static string PermissionName(int permission) => permission switch
    {
        ConsistentRead => "consistent read",
        Write => "write",
        _ => "resize",
    };

    /// <summary>Takes the locks for <paramref name="access"/>.</summary>
    /// <exception cref="ImageLockedException">Someone holds what excludes it.</exception>
    public static void Acquire(SafeFileHandle handle, string path, ImageAccess access)
    {
        ReadOnlySpan<int> used = access == ImageAccess.Write ? [ConsistentRead, Write, Resize] : [ConsistentRead];
        ReadOnlySpan<int> unshared = access == ImageAccess.ReadShared ? [] : [Write, Resize];
        foreach (int permission in used)
            SetShared(handle, path, UsedBase + permission);
        foreach (int permission in unshared)
            SetShared(handle, path, UnsharedBase + permission);
        foreach (int permission in used)
        {
            if (IsHeldByOther(handle, UnsharedBase + permission))
                throw Conflict($"Failed to get \"{PermissionName(permission)}\" lock", handle, path, UnsharedBase + permission);
        }
        foreach (int permission in unshared)
        {
            if (IsHeldByOther(handle, UsedBase + permission))
                throw Conflict($"Failed to get shared \"{PermissionName(permission)}\" lock", handle, path, UsedBase + permission);
        }
    }

    /// <summary>
    /// Gives all locks up. Closing the handle alone does not do it at once: a process that is just being started has
    /// a copy of every handle until it runs its program.
    /// </summary>
    public static void Release(SafeFileHandle handle)
    {
        var all = new LibC.FileLock { Type = LibC.Unlock, Start = UsedBase, Length = 2L * UsedBase };
        _ = LibC.Control((int)handle.DangerousGetHandle(), LibC.SetLock, &all);
    }

    private static void SetShared(SafeFileHandle handle, string path, int position)
    {
        var wanted = new LibC.FileLock { Type = LibC.ReadLock, Start = position, Length = 1 };
        if (LibC.Control((int)handle.DangerousGetHandle(), LibC.SetLock, &wanted) != 0)
        {
            int errorNumber = Marshal.GetLastPInvokeError();
            // Who placed an exclusive lock is no QEMU; treat it as the conflict that it is.
            if (errorNumber == LibC.Again)
                throw Conflict($"Failed to lock byte {position}", handle, path, position);
            throw new BlockFileException("locking", path, errorNumber, Marshal.GetPInvokeErrorMessage(errorNumber));
        }
    }

    private static bool IsHeldByOther(SafeFileHandle handle, int position)
    {
        var probe = new LibC.FileLock { Type = LibC.WriteLock, Start = position, Length = 1 };
        return LibC.Control((int)handle.DangerousGetHandle(), LibC.GetLock, &probe) == 0 && probe.Type != LibC.Unlock;
    }

    private static ImageLockedException Conflict(string what, SafeFileHandle handle, string path, int position)
    {
        string holder = LockHolder.Describe(path, position, (int)handle.DangerousGetHandle()) is { } process ? $" Held by {process}." : "";
        return new ImageLockedException($"{what}\nIs another process using the image [{path}]?{holder}");
    }
}
