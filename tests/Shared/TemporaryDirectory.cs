namespace OrleansDisk.Testing;

/// <summary>A directory of one test's own, gone when the test ends.</summary>
/// <param name="inMemory">Whether it is in memory, where the machine has such a place: for who asks nothing of the file system.</param>
internal sealed class TemporaryDirectory(bool inMemory = false) : IDisposable
{
    private const string Memory = "/dev/shm";

    private readonly DirectoryInfo _directory = System.IO.Directory.CreateDirectory(
        Path.Combine(inMemory && System.IO.Directory.Exists(Memory) ? Memory : Path.GetTempPath(), $"odisk-test-{Guid.NewGuid():n}"));

    public string Directory => _directory.FullName;

    public string File(string name) => Path.Combine(Directory, name);

    public void Dispose() => _directory.Delete(recursive: true);
}
