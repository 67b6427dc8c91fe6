using System.Diagnostics;
using System.Text.Json;
using OrleansDisk.Bench.Tools;

namespace OrleansDisk.Bench.Workloads;

/// <summary>What a load generator saw.</summary>
/// <param name="Requests">Requests that were answered.</param>
/// <param name="Rate">Requests in a second.</param>
internal readonly record struct LoadResult(long Requests, double Rate);

/// <summary>The load generators.</summary>
internal static class Fio
{
    /// <summary>Runs a workload's load for a time.</summary>
    public static Task<LoadResult> ForTimeAsync(Workload workload, string uri, TimeSpan time, CancellationToken cancellation)
    {
        if (workload.IsCopy)
            return CopyAsync(workload, uri, cancellation);
        long bytes = workload.Allocates ? Workload.WarmUpBytes : workload.DiskBytes;
        return RunAsync(
            uri, [.. workload.Load, $"--size={bytes}", "--time_based", $"--runtime={(long)time.TotalMilliseconds}ms"], cancellation);
    }

    /// <summary>Runs a load that allocates, behind what the warm-up has written.</summary>
    public static Task<LoadResult> AllocatingAsync(Workload workload, string uri, CancellationToken cancellation) => RunAsync(
        uri,
        [
            .. workload.Load, $"--offset={Workload.WarmUpBytes}", $"--size={Workload.EmptyBytes - Workload.WarmUpBytes}",
            $"--number_ios={Workload.AllocationCount}",
        ],
        cancellation);

    /// <summary>Runs fio with the same random numbers every time.</summary>
    /// <exception cref="BenchException">A request failed.</exception>
    public static async Task<LoadResult> RunAsync(string uri, IEnumerable<string> options, CancellationToken cancellation)
    {
        string[] arguments =
        [
            "--name=bench", "--ioengine=nbd", $"--uri={uri}", "--output-format=json", "--norandommap=1", "--group_reporting", .. options,
        ];
        string output = await Tool.RunAsync("fio", arguments, cancellation);
        // Notes may stand in front of the JSON.
        using var json = JsonDocument.Parse(output.AsMemory(output.IndexOf('{', StringComparison.Ordinal)));
        JsonElement job = json.RootElement.GetProperty("jobs")[0];
        if (job.GetProperty("error").GetInt32() != 0)
            throw new BenchException($"fio {string.Join(' ', arguments)} failed:\n{output}");
        JsonElement read = job.GetProperty("read");
        JsonElement write = job.GetProperty("write");
        return new LoadResult(
            read.GetProperty("total_ios").GetInt64() + write.GetProperty("total_ios").GetInt64(),
            read.GetProperty("iops").GetDouble() + write.GetProperty("iops").GetDouble());
    }

    private static async Task<LoadResult> CopyAsync(Workload workload, string uri, CancellationToken cancellation)
    {
        var time = Stopwatch.StartNew();
        await Tool.RunAsync("nbdcopy", [uri, "null:"], cancellation);
        long mebibytes = workload.DiskBytes >> 20;
        return new LoadResult(mebibytes, mebibytes / time.Elapsed.TotalSeconds);
    }
}
