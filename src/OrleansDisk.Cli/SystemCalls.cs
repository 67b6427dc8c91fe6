using System.Runtime.InteropServices;

namespace OrleansDisk.Cli;

/// <summary>The system calls for which the class library has no equal.</summary>
internal static unsafe partial class SystemCalls
{
    public const int Interrupted = 4;

    private const int OpenReadWrite = 2;

    /// <summary>Makes this process the leader of a session of its own.</summary>
    [LibraryImport("libc", EntryPoint = "setsid", SetLastError = true)]
    public static partial int NewSession();

    /// <summary>Sends a signal to a process.</summary>
    [LibraryImport("libc", EntryPoint = "kill", SetLastError = true)]
    public static partial int Kill(int process, int signal);

    /// <summary>Ends this process by SIGABRT.</summary>
    [LibraryImport("libc", EntryPoint = "abort")]
    public static partial void Abort();

    /// <summary>Whether a descriptor leads to a terminal: 1 if it does.</summary>
    [LibraryImport("libc", EntryPoint = "isatty", SetLastError = true)]
    public static partial int IsTerminal(int descriptor);

    /// <summary>Points descriptors to /dev/null.</summary>
    public static void RedirectToNull(params ReadOnlySpan<int> descriptors)
    {
        int nothing = Open("/dev/null", OpenReadWrite);
        if (nothing < 0)
            return;
        foreach (int descriptor in descriptors)
            _ = Duplicate(nothing, descriptor);
        _ = Close(nothing);
    }

    [LibraryImport("libc", EntryPoint = "open", StringMarshalling = StringMarshalling.Utf8, SetLastError = true)]
    private static partial int Open(string path, int flags);

    [LibraryImport("libc", EntryPoint = "dup2", SetLastError = true)]
    private static partial int Duplicate(int from, int to);

    [LibraryImport("libc", EntryPoint = "close", SetLastError = true)]
    private static partial int Close(int descriptor);

    [LibraryImport("libc", EntryPoint = "write", SetLastError = true)]
    public static partial nint Write(int descriptor, byte* buffer, nuint bytes);
}
