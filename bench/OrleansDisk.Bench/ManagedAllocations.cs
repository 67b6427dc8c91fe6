using System.Globalization;
using System.Text;
using OrleansDisk.Bench.Servers;
using OrleansDisk.Bench.Tools;
using OrleansDisk.Bench.Workloads;

namespace OrleansDisk.Bench;

/// <summary>Managed memory that odiskd allocates for a request once it runs steadily.</summary>
internal sealed class ManagedAllocations(BenchOptions options, Workspace workspace, Images images)
{
    /// <summary>Two runs of different length: their difference is free of what a connection costs.</summary>
    private const int ShortRun = 10_000;
    private const int LongRun = 110_000;
    private const int WarmUpRun = 50_000;

    // A long run of large requests would take minutes, and one that allocates would run out of empty clusters.
    private const int LargeRequestDivisor = 50;
    private const int AllocatingDivisor = 5;

    /// <summary>A Markdown table; empty when there is nothing to measure.</summary>
    public async Task<string> MeasureAsync(CancellationToken cancellation)
    {
        Workload[] workloads = [.. options.Workloads.Where(w => w is { OnDisk: false, OverTcp: false, IsCopy: false })];
        ServerProgram? daemon = options.Servers.FirstOrDefault(s => s.Name == ServerProgram.OdiskdName);
        if (workloads.Length == 0 || daemon is null)
            return "";
        var table = new StringBuilder("| workload | odiskd: managed bytes allocated for a request |\n|---|---|");
        foreach (Workload workload in workloads)
        {
            double bytes = await MeasureAsync(workload, daemon, cancellation);
            table.Append(CultureInfo.InvariantCulture, $"\n| {workload.Name} | {bytes:0.0} |");
        }
        images.DiscardCopies();
        return table.ToString();
    }

    private async Task<double> MeasureAsync(Workload workload, ServerProgram daemon, CancellationToken cancellation)
    {
        string image = await images.ForAsync(workload, daemon.Name, daemon.IsRaw, cancellation);
        string probe = Path.Combine(workspace.Memory, "probe.socket");
        var endpoint = Endpoint.Unix(Path.Combine(workspace.Memory, daemon.Name + ".socket"));
        try
        {
            await using RunningServer server =
                await RunningServer.StartAsync(daemon, new ServerStart(image, endpoint, IsDirect: false), cancellation, probe);
            await RunAsync(WarmUpRun, seed: 1);
            (long shortBytes, long shortRequests) = await RunAsync(ShortRun, seed: 2);
            (long longBytes, long longRequests) = await RunAsync(LongRun, seed: 3);
            return Math.Max(0, (double)(longBytes - shortBytes) / (longRequests - shortRequests));

            async Task<(long Bytes, long Requests)> RunAsync(int requests, int seed)
            {
                int divisor = workload.Allocates ? AllocatingDivisor : workload.Load.Contains("--bs=1m") ? LargeRequestDivisor : 1;
                Counters before = await Counters.ReadAsync(probe, afterCollection: false, cancellation);
                LoadResult load = await Fio.RunAsync(
                    server.Uri,
                    [.. workload.Load, $"--size={workload.DiskBytes}", $"--number_ios={requests / divisor}", $"--randseed={seed}"],
                    cancellation);
                Counters after = await Counters.ReadAsync(probe, afterCollection: false, cancellation);
                return (after.Allocated - before.Allocated, load.Requests);
            }
        }
        finally
        {
            File.Delete(probe);
            images.Discard(image);
        }
    }
}
