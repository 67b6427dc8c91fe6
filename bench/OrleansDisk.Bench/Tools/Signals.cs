using System.Runtime.InteropServices;

namespace OrleansDisk.Bench.Tools;

/// <summary>kill(2), which the class library has for SIGKILL only.</summary>
internal static partial class Signals
{
    public const int Terminate = 15;
    public const int Continue = 18;
    public const int Stop = 19;

    /// <summary>Sends a signal; a process that has ended does not mind.</summary>
    [LibraryImport("libc", EntryPoint = "kill")]
    public static partial int Send(int processId, int signal);
}
