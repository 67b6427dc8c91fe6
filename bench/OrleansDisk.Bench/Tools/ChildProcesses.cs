using System.Runtime.InteropServices;

namespace OrleansDisk.Bench.Tools;

/// <summary>What the programs that ran to their end have cost.</summary>
internal static partial class ChildProcesses
{
    private const int OfChildren = -1; // RUSAGE_CHILDREN

    /// <summary>Processor time, user and system, of all children that have ended.</summary>
    public static TimeSpan ProcessorTime
    {
        get
        {
            _ = GetUsage(OfChildren, out Usage usage);
            return usage.User.Span + usage.System.Span;
        }
    }

    [LibraryImport("libc", EntryPoint = "getrusage")]
    private static partial int GetUsage(int who, out Usage usage);

    [StructLayout(LayoutKind.Sequential)]
    private struct TimeValue
    {
        public long Seconds;
        public long Microseconds;

        public readonly TimeSpan Span => TimeSpan.FromSeconds(Seconds) + TimeSpan.FromMicroseconds(Microseconds);
    }

    /// <summary>struct rusage, of which only the times matter here.</summary>
    [StructLayout(LayoutKind.Sequential, Size = 144)]
    private struct Usage
    {
        public TimeValue User;
        public TimeValue System;
    }
}
