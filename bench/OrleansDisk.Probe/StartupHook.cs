using System.Globalization;
using System.Net.Sockets;
using System.Text;

/// <summary>
/// What the runtime calls before the main program when DOTNET_STARTUP_HOOKS names this assembly. It answers every
/// connection to the unix socket of ODISK_PROBE with the counters of the garbage collector, so that the program
/// that is measured is the one that is shipped.
/// </summary>
internal static class StartupHook
{
    public static void Initialize()
    {
        if (Environment.GetEnvironmentVariable("ODISK_PROBE") is not { Length: > 0 } path)
            return;
        var listener = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        listener.Bind(new UnixDomainSocketEndPoint(path));
        listener.Listen();
        new Thread(() => Answer(listener)) { IsBackground = true, Name = "probe" }.Start();
    }

    /// <summary>A client sends one byte: 'g' for a full collection before the counters are read, anything else for none.</summary>
    private static void Answer(Socket listener)
    {
        byte[] question = new byte[1];
        while (true)
        {
            using Socket client = listener.Accept();
            if (client.Receive(question) == 1 && question[0] == 'g')
                Collect();
            client.Send(Encoding.ASCII.GetBytes(Counters()));
        }
    }

    private static void Collect()
    {
        GC.Collect(GC.MaxGeneration, GCCollectionMode.Aggressive, blocking: true, compacting: true);
        GC.WaitForPendingFinalizers();
        GC.Collect(GC.MaxGeneration, GCCollectionMode.Aggressive, blocking: true, compacting: true);
    }

    private static string Counters()
    {
        GCMemoryInfo memory = GC.GetGCMemoryInfo(GCKind.Any);
        ReadOnlySpan<GCGenerationInfo> generations = memory.GenerationInfo;
        return string.Create(CultureInfo.InvariantCulture,
            $"allocated {GC.GetTotalAllocatedBytes(precise: true)}\nheap {GC.GetTotalMemory(false)}\n"
            + $"committed {memory.TotalCommittedBytes}\nlarge {generations[3].SizeAfterBytes}\n"
            + $"pinned {generations[4].SizeAfterBytes}\n");
    }
}
