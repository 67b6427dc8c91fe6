using OrleansDisk.Bench.Servers;
using OrleansDisk.Bench.Workloads;

namespace OrleansDisk.Bench.Results;

/// <summary>A workload's medians.</summary>
internal sealed class Row(Workload workload, IReadOnlyDictionary<string, Measurement> medians)
{
    public Workload Workload => workload;

    /// <summary>The server of the better qemu-nbd, or null when none was measured.</summary>
    public string? BestQemuNbd => medians.Keys
        .Where(name => name.StartsWith(ServerProgram.QemuNbdName, StringComparison.Ordinal))
        .MaxBy(name => medians[name].Rate);

    /// <summary>A server's median; "qemu-nbd" stands for the better of its modes. Null when it was not measured.</summary>
    public Measurement? Of(string server)
    {
        string? name = server == ServerProgram.QemuNbdName ? BestQemuNbd : server;
        return name is not null && medians.TryGetValue(name, out Measurement median) ? median : null;
    }

    /// <summary>How many times a server's rate the daemon reaches; null when one of them was not measured.</summary>
    public double? RatioTo(string server) => Of(ServerProgram.OdiskdName)?.Rate / Of(server)?.Rate;
}
