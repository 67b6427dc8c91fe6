using System.Globalization;
using System.Runtime.InteropServices;
using OrleansDisk.Bench.Tools;

namespace OrleansDisk.Bench;

/// <summary>What a report says of the machine and of how it was measured.</summary>
internal static class Machine
{
    public static async Task<string> DescribeAsync(BenchOptions options, Workspace workspace, CancellationToken cancellation)
    {
        string kernel = await File.ReadAllTextAsync("/proc/sys/kernel/osrelease", cancellation);
        string qemu = await VersionAsync("qemu-nbd", cancellation);
        string nbdkit = await VersionAsync("nbdkit", cancellation);
        string load = options.LoadIsLight ? "the light load generator" : await VersionAsync("fio", cancellation);
        string time = options.Time.TotalSeconds.ToString(CultureInfo.InvariantCulture);
        return $"{Environment.ProcessorCount} cores ({await ProcessorAsync(cancellation)}), Linux {kernel.Trim()}, .NET {Environment.Version}, {qemu}, "
            + $"{nbdkit}, {load}; OrleansDisk at {await CommitAsync(cancellation)}. Medians of {options.Rounds} interleaved rounds of {time} s. "
            + "Requests in a second, and in parentheses the server's CPU time for a request in microseconds; `t` marks qemu-nbd with "
            + "`--aio=threads` where that was faster than `--aio=io_uring`; `✓ n` is a target that was met, `✗ n` one that was missed. "
            + $"Disk: {workspace.DiskDescription}.";
    }

    /// <summary>The machine and qemu-img, for a report that has nothing to do with servers.</summary>
    public static async Task<string> DescribeHostAsync(CancellationToken cancellation)
    {
        string kernel = await File.ReadAllTextAsync("/proc/sys/kernel/osrelease", cancellation);
        return $"{Environment.ProcessorCount} cores ({await ProcessorAsync(cancellation)}), Linux {kernel.Trim()}, "
            + $"{await VersionAsync("qemu-img", cancellation)}; OrleansDisk at {await CommitAsync(cancellation)}";
    }

    private static async Task<string> VersionAsync(string program, CancellationToken cancellation)
    {
        string line = (await Tool.RunAsync(program, ["--version"], cancellation)).Split('\n')[0];
        int details = line.IndexOf(" (", StringComparison.Ordinal);
        return details < 0 ? line : line[..details];
    }

    private static async Task<string> ProcessorAsync(CancellationToken cancellation)
    {
        string[] lines = await File.ReadAllLinesAsync("/proc/cpuinfo", cancellation);
        string? model = Array.Find(lines, line => line.StartsWith("model name", StringComparison.Ordinal));
        return model is null ? RuntimeInformation.ProcessArchitecture.ToString() : model[(model.IndexOf(':', StringComparison.Ordinal) + 2)..];
    }

    private static async Task<string> CommitAsync(CancellationToken cancellation)
    {
        string[] arguments = ["-C", Repository.Root, "describe", "--always", "--dirty", "--exclude=*"];
        (int exitCode, string output, _) = await Tool.TryAsync("git", arguments, cancellation);
        return exitCode == 0 ? output.Trim() : "an unknown commit";
    }
}
