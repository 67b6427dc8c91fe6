using System.Diagnostics;
using System.Globalization;
using OrleansDisk.Bench.Servers;

namespace OrleansDisk.Bench.Workloads;

/// <summary>What the light load sends: the part of fio's options that it knows.</summary>
/// <param name="IsWrite">Random writes, else random reads.</param>
/// <param name="Depth">Requests under way on each connection.</param>
/// <param name="ConnectionCount">Connections, each with a thread of its own.</param>
internal sealed record LightShape(bool IsWrite, int Depth, int ConnectionCount)
{
    /// <summary>Requests are of 4 KiB: of larger ones, all that are under way would not fit into a socket.</summary>
    public const int BlockBytes = 4096;

    /// <summary>The shape of a workload, or null where it is one that the light load can't send.</summary>
    public static LightShape? Of(Workload workload)
    {
        if (Option(workload, "--bs") != "4k" || Option(workload, "--rw") is not ("randread" or "randwrite"))
            return null;
        return new LightShape(Option(workload, "--rw") == "randwrite", Number("--iodepth"), Number("--numjobs"));

        int Number(string name) => int.Parse(Option(workload, name) ?? "1", CultureInfo.InvariantCulture);
    }

    private static string? Option(Workload workload, string name) =>
        workload.Load.FirstOrDefault(option => option.StartsWith(name + "=", StringComparison.Ordinal))?[(name.Length + 1)..];
}

/// <summary>
/// A load generator that costs less CPU for a request than fio: where fio and the server share two cores, fio is what
/// bounds the rate of a fast server.
/// </summary>
internal static class LightLoad
{
    /// <summary>Runs a workload's load for a time.</summary>
    public static LoadResult ForTime(Workload workload, Endpoint server, TimeSpan time) =>
        Run(workload, server, 0, workload.Allocates ? Workload.WarmUpBytes : workload.DiskBytes, time, long.MaxValue);

    /// <summary>Runs a load that allocates, behind what the warm-up has written.</summary>
    public static LoadResult Allocating(Workload workload, Endpoint server) => Run(
        workload, server, Workload.WarmUpBytes, Workload.EmptyBytes - Workload.WarmUpBytes, Timeout.InfiniteTimeSpan, Workload.AllocationCount);

    private static LoadResult Run(Workload workload, Endpoint server, long firstByte, long bytes, TimeSpan time, long limit)
    {
        LightShape shape = LightShape.Of(workload)!;
        var connections = new List<LightConnection>();
        try
        {
            for (int i = 0; i < shape.ConnectionCount; i++)
                connections.Add(new LightConnection(server, shape, seed: i));
            var elapsed = Stopwatch.StartNew();
            long requests = 0;
            // Threads of their own: they block in their sockets.
            Task[] runs = [.. connections.Select(connection => Task.Factory.StartNew(
                () => Interlocked.Add(ref requests, connection.Run(firstByte, bytes, time, limit)),
                CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default))];
            Task.WaitAll(runs);
            return new LoadResult(requests, requests / elapsed.Elapsed.TotalSeconds);
        }
        finally
        {
            connections.ForEach(connection => connection.Dispose());
        }
    }
}
