using OrleansDisk.Bench.Servers;
using OrleansDisk.Bench.Tools;
using OrleansDisk.Bench.Workloads;

namespace OrleansDisk.Bench;

/// <summary>The workloads that write, with fio reading back and comparing all it wrote, and qemu-img as the judge of the image.</summary>
internal sealed class Verification(BenchOptions options, Workspace workspace, Images images)
{
    /// <summary>What one verification writes, so that it ends soon and is verified as a whole.</summary>
    private const long WrittenBytes = 256L << 20;

    /// <summary>Gives the exit code: 1 when an image is not as it should be.</summary>
    /// <exception cref="BenchException">Data that was read differs from what was written.</exception>
    public async Task<int> RunAsync(CancellationToken cancellation)
    {
        int exitCode = 0;
        foreach (Workload workload in options.Workloads.Where(w => w.Writes && w.Place != Place.DiskDirect))
        {
            foreach (ServerProgram program in options.Servers.Where(s => s.Name is ServerProgram.OdiskName or ServerProgram.OdiskdName))
            {
                string image = await images.ForAsync(workload, program.Name, program.IsRaw, cancellation);
                await WriteAsync(workload, program, image, cancellation);
                (int checkCode, string output, string errors) = await Tool.TryAsync("qemu-img", ["check", image], cancellation);
                Console.WriteLine($"{workload.Key} on {program.Name}: {(checkCode == 0 ? "verified, qemu-img check: clean" : output + errors)}");
                exitCode = Math.Max(exitCode, Math.Min(checkCode, 1));
                images.Discard(image);
            }
        }
        return exitCode;
    }

    private async Task WriteAsync(Workload workload, ServerProgram program, string image, CancellationToken cancellation)
    {
        Endpoint endpoint = workload.OverTcp ? Endpoint.Tcp() : Endpoint.Unix(Path.Combine(workspace.Memory, program.Name + ".socket"));
        await using RunningServer server = await RunningServer.StartAsync(program, new ServerStart(image, endpoint, IsDirect: false), cancellation);
        // Every connection has a part of the disk of its own: what two write at once can't be compared with either.
        int connections = workload.Load.Contains("--numjobs=4") ? 4 : 1;
        long bytes = workload.DiskBytes / connections;
        await Fio.RunAsync(
            server.Uri,
            [
                .. workload.Load, "--rw=randwrite", $"--size={bytes}", $"--offset_increment={bytes}",
                $"--io_size={WrittenBytes / connections}", "--norandommap=0", "--randrepeat=0",
                "--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0",
            ],
            cancellation);
    }
}
