using System.Runtime.InteropServices;

namespace OrleansDisk.Cli;

/// <summary>The system calls for which the class library has no equal.</summary>
internal static unsafe partial class SystemCalls
{
    public const int Interrupted = 4;

    [LibraryImport("libc", EntryPoint = "write", SetLastError = true)]
    public static partial nint Write(int descriptor, byte* buffer, nuint bytes);
}
