using OrleansDisk.Qcow2;

namespace OrleansDisk.Interop.Tests.Snapshots;

/// <summary>An image in a directory of its own, and what its disk and its snapshots are to hold.</summary>
internal sealed class SnapshotModel : IDisposable
{
    private readonly TemporaryDirectory _directory = new(inMemory: true);
    private readonly Dictionary<string, byte[]> _snapshots = [];
    private readonly int _clusterBytes;

    /// <param name="bytes">Size of the disk.</param>
    /// <param name="clusterBytes">Cluster size of the image.</param>
    /// <param name="options">What else -o of qemu-img takes.</param>
    public SnapshotModel(int bytes, int clusterBytes, string options)
    {
        _clusterBytes = clusterBytes;
        Path = _directory.File("disk.qcow2");
        Contents = new byte[bytes];
        Disk.Create(Path, bytes, $"cluster_size={clusterBytes},{options}");
    }

    /// <summary>Versions, cluster sizes and refcount widths that snapshots are tested with.</summary>
    public static TheoryData<string, int, int> Geometries => new()
    {
        { "0.10", 65536, 16 },
        { "0.10", 512, 16 },
        { "1.1", 65536, 2 },
        { "1.1", 4096, 2 },
        { "1.1", 512, 4 },
        { "1.1", 4096, 8 },
        { "1.1", 2 << 20, 16 },
        { "1.1", 1024, 32 },
        { "1.1", 512, 64 },
    };

    public string Path { get; }

    /// <summary>What the disk holds.</summary>
    public byte[] Contents { get; }

    public void Dispose() => _directory.Dispose();

    /// <summary>Writes at random.</summary>
    public Task WriteAsync(int seed) => Exclusive.Run(() => Disk.ScribbleAsync(
        Path, Contents, seed, Disk.Writing(_clusterBytes), groups: 8, maxBytes: Math.Max(40_000, _clusterBytes / 2)));

    public Task OnImageAsync(Func<Qcow2Image, Task> act) => Disk.OnImageAsync(Path, _clusterBytes, act);

    /// <summary>A snapshot was taken.</summary>
    public void NoteTaken(string name) => _snapshots[name] = [.. Contents];

    /// <summary>A snapshot was applied.</summary>
    public void NoteApplied(string name) => _snapshots[name].CopyTo(Contents, 0);

    /// <summary>A snapshot was deleted.</summary>
    public void NoteDeleted(string name) => _snapshots.Remove(name);

    /// <summary>The image is clean, and the disk and all snapshots hold what they are to hold.</summary>
    public async Task JudgeAsync()
    {
        await Judge.FindsCleanAsync(Path);
        JudgeContents();
    }

    /// <summary>The disk and all snapshots hold what they are to hold.</summary>
    public void JudgeContents()
    {
        Judge.ReadsAs(Path, Contents);
        foreach ((string name, byte[] bytes) in _snapshots)
            Assert.True(Judge.ReadSnapshot(Path, name).AsSpan().SequenceEqual(bytes), $"snapshot {name} has changed");
    }
}
