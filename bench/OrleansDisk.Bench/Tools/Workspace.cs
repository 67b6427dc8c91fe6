using System.Globalization;

namespace OrleansDisk.Bench.Tools;

/// <summary>Folders for images, in memory and on a disk. Everything in them goes when the workspace is disposed.</summary>
internal sealed class Workspace : IAsyncDisposable
{
    private const string MemoryFolder = "/dev/shm";
    private const long LoopFileBytes = 16L << 30;

    private readonly string? _diskDirectory;
    private readonly string _name = "odisk-bench." + Environment.ProcessId.ToString(CultureInfo.InvariantCulture);
    private readonly Stack<Func<Task>> _undo = [];
    private string? _disk;

    /// <param name="diskDirectory">Where to put images that are to lie on a disk; null for a file system of our own.</param>
    public Workspace(string? diskDirectory)
    {
        _diskDirectory = diskDirectory;
        Requirements.CheckMemory(MemoryFolder);
        Memory = MakeFolder(MemoryFolder);
    }

    /// <summary>A folder in a tmpfs.</summary>
    public string Memory { get; }

    /// <summary>A folder on a disk: the one that was named, or an ext4 in a file of our own, which takes root.</summary>
    /// <exception cref="BenchException">Neither can be had.</exception>
    public async Task<string> DiskAsync(CancellationToken cancellation)
    {
        if (_disk is null && _diskDirectory is not null)
            _disk = MakeFolder(Path.GetFullPath(_diskDirectory));
        return _disk ??= await MountAsync(cancellation);
    }

    /// <summary>How the disk's file system came about, for the report.</summary>
    public string DiskDescription => _diskDirectory is null ? "ext4 in a loop-mounted file (direct I/O below)" : "the folder of --dir";

    /// <summary>Writes back what was written below the disk's folder, so that no server pays for another one.</summary>
    public static Task WriteBackAsync(string folder, CancellationToken cancellation) =>
        Tool.RunAsync("sync", ["-f", folder], cancellation);

    /// <summary>Empties the page cache: all of it as root; of the given file alone otherwise.</summary>
    public static async Task DropCacheAsync(string file, CancellationToken cancellation)
    {
        await Tool.RunAsync("sync", [file], cancellation);
        if (Environment.IsPrivilegedProcess)
            await File.WriteAllTextAsync("/proc/sys/vm/drop_caches", "3\n", cancellation);
        // dd with count=0 and this flag does nothing but POSIX_FADV_DONTNEED for the whole file.
        await Tool.RunAsync("dd", [$"if={file}", "iflag=nocache", "count=0", "status=none"], cancellation);
    }

    public async ValueTask DisposeAsync()
    {
        while (_undo.TryPop(out Func<Task>? undo))
            await undo();
    }

    private string MakeFolder(string parent)
    {
        string folder = Path.Combine(parent, _name);
        Directory.CreateDirectory(folder);
        _undo.Push(() =>
        {
            Directory.Delete(folder, recursive: true);
            return Task.CompletedTask;
        });
        return folder;
    }

    private async Task<string> MountAsync(CancellationToken cancellation)
    {
        if (!Environment.IsPrivilegedProcess)
            throw new BenchException("workloads on a disk need root for a loop mount, or --dir FOLDER on an ext4 (or --only 'memory-*')");
        Directory.CreateDirectory(Repository.Scratch);
        string folder = MakeFolder(Repository.Scratch);
        string file = Path.Combine(folder, "ext4");
        string mount = Path.Combine(folder, "mount");
        Directory.CreateDirectory(mount);
        await using (FileStream stream = File.Create(file))
            stream.SetLength(LoopFileBytes);
        await Tool.RunAsync("mke2fs", ["-q", "-t", "ext4", "-E", "lazy_itable_init=0,lazy_journal_init=0", file], cancellation);
        string[] losetup = ["--direct-io=on", "--find", "--show", file];
        string device = (await Tool.RunAsync("losetup", losetup, cancellation)).Trim();
        _undo.Push(() => Tool.RunAsync("losetup", ["--detach", device], CancellationToken.None));
        await Tool.RunAsync("mount", [device, mount], cancellation);
        _undo.Push(() => Tool.RunAsync("umount", [mount], CancellationToken.None));
        return mount;
    }
}
