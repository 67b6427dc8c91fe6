using System.Runtime.InteropServices;

namespace OrleansDisk.Qcow2.Io;

/// <summary>The system calls for which the class library has no equal.</summary>
internal static unsafe partial class LibC
{
    public const int Interrupted = 4;
    public const int Again = 11;
    public const int CrossDevice = 18;
    public const int FileTooBig = 27;
    public const int NoSpace = 28;
    public const int NotSupported = 95;
    public const int NoSuchDevice = 6;
    public const int NotImplemented = 38;
    public const int InvalidArgument = 22;
    public const int QuotaExceeded = 122;

    public const int ReadNoWait = 8;
    public const int KeepSize = 1;
    public const int PunchHole = 2;
    public const int SeekEnd = 2;
    public const int SeekData = 3;
    public const int SeekHole = 4;

    /// <summary>Buffers that one call takes at most.</summary>
    public const int MaxVectorCount = 1024;

    [StructLayout(LayoutKind.Sequential)]
    public struct IoVector
    {
        public void* Start;
        public nuint Bytes;
    }

    [LibraryImport("libc", EntryPoint = "preadv2", SetLastError = true)]
    public static partial nint ReadVector(int file, IoVector* vectors, int count, long offset, int flags);

    [LibraryImport("libc", EntryPoint = "pread", SetLastError = true)]
    public static partial nint Read(int file, void* buffer, nuint bytes, long offset);

    [LibraryImport("libc", EntryPoint = "pwrite", SetLastError = true)]
    public static partial nint Write(int file, void* buffer, nuint bytes, long offset);

    [LibraryImport("libc", EntryPoint = "pwritev", SetLastError = true)]
    public static partial nint WriteVector(int file, IoVector* vectors, int count, long offset);

    [LibraryImport("libc", EntryPoint = "fdatasync", SetLastError = true)]
    public static partial int DataSync(int file);

    public const int NotNeeded = 4;

    /// <summary>Returns the error's number.</summary>
    [LibraryImport("libc", EntryPoint = "posix_fadvise")]
    public static partial int Advise(int file, long offset, long bytes, int advice);

    [LibraryImport("libc", EntryPoint = "fallocate", SetLastError = true)]
    public static partial int Allocate(int file, int mode, long offset, long bytes);

    [LibraryImport("libc", EntryPoint = "copy_file_range", SetLastError = true)]
    public static partial nint CopyRange(int from, ref long fromOffset, int to, ref long toOffset, nuint bytes, uint flags);

    [LibraryImport("libc", EntryPoint = "ftruncate", SetLastError = true)]
    public static partial int Truncate(int file, long bytes);

    [LibraryImport("libc", EntryPoint = "lseek", SetLastError = true)]
    public static partial long Seek(int file, long offset, int whence);

    [LibraryImport("libc", EntryPoint = "statx", StringMarshalling = StringMarshalling.Utf8, SetLastError = true)]
    public static partial int ExtendedStatus(int directory, string path, int flags, uint mask, byte* status);

    public const short ReadLock = 0;
    public const short WriteLock = 1;
    public const short Unlock = 2;
    public const int GetLock = 36;
    public const int SetLock = 37;

    [StructLayout(LayoutKind.Sequential)]
    public struct FileLock
    {
        public short Type;
        public short Whence;
        public long Start;
        public long Length;
        public int Process;
    }

    [LibraryImport("libc", EntryPoint = "fcntl", SetLastError = true)]
    public static partial int Control(int file, int command, FileLock* fileLock);

    public const int GetFlags = 3;
    public const int SetFlags = 4;

    /// <summary>O_DIRECT; its number is the processor's.</summary>
    public static nint DirectFlag { get; } =
        RuntimeInformation.ProcessArchitecture is Architecture.Arm64 or Architecture.Arm ? 0x10000 : 0x4000;

    [LibraryImport("libc", EntryPoint = "fcntl", SetLastError = true)]
    public static partial int Control(int file, int command, nint argument);
}
