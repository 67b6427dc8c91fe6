using OrleansDisk.Bench.Tools;

namespace OrleansDisk.Bench.Workloads;

/// <summary>
/// Images, one identical copy for each server, made when they are first asked for. A copy that was written is
/// thrown away with <see cref="Discard"/>, so that all servers start from the same history.
/// </summary>
internal sealed class Images(Workspace workspace)
{
    private const string PatternCommand = "write -q -P 7";
    private const int PatternMiB = 256;

    private readonly HashSet<string> _copies = [];

    /// <summary>The path of a server's own image for a workload.</summary>
    public async Task<string> ForAsync(Workload workload, string server, bool isRaw, CancellationToken cancellation)
    {
        string folder = await FolderAsync(workload, server, cancellation);
        string file = Path.Combine(folder, isRaw ? "disk.raw" : "disk.qcow2");
        if (!workload.Allocates && _copies.Contains(file))
            return file;
        Directory.CreateDirectory(folder);
        if (workload.Allocates)
        {
            File.Delete(file);
            await CreateAsync(file, isRaw, workload.DiskBytes, [], cancellation);
            return file;
        }
        string master = await MasterAsync(workload.Image, isRaw, cancellation);
        await Tool.RunAsync("cp", ["--sparse=auto", master, file], cancellation);
        if (workload.OnDisk)
            await Workspace.WriteBackAsync(folder, cancellation);
        _copies.Add(file);
        return file;
    }

    /// <summary>Deletes a server's copy.</summary>
    public void Discard(string file)
    {
        _copies.Remove(file);
        File.Delete(file);
    }

    /// <summary>Deletes all copies; masters stay.</summary>
    public void DiscardCopies()
    {
        foreach (string file in _copies)
            File.Delete(file);
        _copies.Clear();
    }

    private async Task<string> FolderAsync(Workload workload, string server, CancellationToken cancellation)
    {
        string root = workload.OnDisk ? await workspace.DiskAsync(cancellation) : workspace.Memory;
        return Path.Combine(root, $"{server}-{workload.Image}");
    }

    private async Task<string> MasterAsync(ImageKind kind, bool isRaw, CancellationToken cancellation)
    {
        string file = Path.Combine(workspace.Memory, $"{kind}.{(isRaw ? "raw" : "qcow2")}");
        if (File.Exists(file))
            return file;
        if (kind == ImageKind.Huge)
        {
            // Metadata alone: 128 MiB of L2 tables, and data clusters that are holes of the file.
            await CreateAsync(file, isRaw, Workload.HugeBytes, isRaw ? [] : ["-o", "preallocation=metadata"], cancellation);
        }
        else if (isRaw)
        {
            string qcow2 = await MasterAsync(kind, isRaw: false, cancellation);
            await Tool.RunAsync("qemu-img", ["convert", "-f", "qcow2", "-O", "raw", qcow2, file], cancellation);
        }
        else
        {
            await CreateAsync(file, isRaw, Workload.FilledBytes, [], cancellation);
            IEnumerable<string> writes = Enumerable.Range(0, (int)(Workload.FilledBytes >> 20) / PatternMiB)
                .SelectMany(i => (string[])["-c", $"{PatternCommand} {i * PatternMiB}M {PatternMiB}M"]);
            await Tool.RunAsync("qemu-io", ["-f", "qcow2", .. writes, file], cancellation);
        }
        return file;
    }

    private static Task<string> CreateAsync(string file, bool isRaw, long bytes, string[] options, CancellationToken cancellation) =>
        Tool.RunAsync("qemu-img", ["create", "-q", "-f", isRaw ? "raw" : "qcow2", .. options, file, $"{bytes}"], cancellation);
}
