using System.Runtime.InteropServices;

namespace OrleansDisk.Qcow2.Io;

/// <summary>What the file system says of a file: the space that it takes, and whether it is one at all.</summary>
public static unsafe class FileSpace
{
    private const int CurrentDirectory = -100;
    private const uint BlocksWanted = 0x400;
    private const int BlockBytes = 512;
    private const uint TypeWanted = 1;
    private const int ModeOffset = 28;
    private const int TypeMask = 0xf000;
    private const int Pipe = 0x1000;
    private const int CharacterDevice = 0x2000;
    private const int BlockDevice = 0x6000;
    private const int Regular = 0x8000;
    private const int Socket = 0xc000;
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

    /// <summary>Whether there is something at a path that is a device, a directory or a stream.</summary>
    public static bool IsIrregular(string path) => TypeOf(path) is not (0 or Regular);

    /// <summary>Whether there is something at a path that is neither a block nor a character device.</summary>
    public static bool IsNoDevice(string path) => TypeOf(path) is not (0 or BlockDevice or CharacterDevice);

    public static bool IsCharacterDevice(string path) => TypeOf(path) == CharacterDevice;

    /// <summary>Whether a path leads to a pipe, a socket or a character device, which hold no disk.</summary>
    internal static bool IsStream(string path) => TypeOf(path) is Pipe or CharacterDevice or Socket;

    /// <summary>Whether a path leads to a block device.</summary>
    internal static bool IsDevice(string path) => TypeOf(path) == BlockDevice;

    private static int TypeOf(string path)
    {
        byte* status = stackalloc byte[StatusBytes];
        return LibC.ExtendedStatus(CurrentDirectory, path, 0, TypeWanted, status) == 0
            ? Marshal.ReadInt16((nint)status, ModeOffset) & TypeMask : 0;
    }
}
