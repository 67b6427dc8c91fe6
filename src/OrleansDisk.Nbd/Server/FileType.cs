using System.Runtime.InteropServices;

namespace OrleansDisk.Nbd.Server;

/// <summary>Tells sockets from other files, which the base class library can't.</summary>
internal static unsafe partial class FileType
{
    private const int CurrentDirectory = -100;
    private const uint TypeMask = 1;
    private const int StructureBytes = 256;
    private const int ModeOffset = 28;
    private const int FormatBits = 0xf000;
    private const int SocketFormat = 0xc000;

    /// <summary>Whether the file is a unix socket; false for anything else, or nothing.</summary>
    public static bool IsSocket(string path)
    {
        byte* status = stackalloc byte[StructureBytes];
        if (StatusCall(CurrentDirectory, path, 0, TypeMask, status) != 0)
            return false;
        ushort mode = MemoryMarshal.Read<ushort>(new ReadOnlySpan<byte>(status + ModeOffset, 2));
        return (mode & FormatBits) == SocketFormat;
    }

    // statx(2), because its structure is the same on every architecture.
    [LibraryImport("libc", EntryPoint = "statx", StringMarshalling = StringMarshalling.Utf8)]
    private static partial int StatusCall(int directory, string path, int flags, uint mask, byte* status);
}
