namespace OrleansDisk.Interop.Tests;

/// <summary>A directory that goes with the test, in memory where the machine has such a place.</summary>
internal sealed class TemporaryDirectory : IDisposable
{
    private readonly DirectoryInfo _directory =
        Directory.CreateDirectory(System.IO.Path.Combine(Root, $"odisk-{Guid.NewGuid():n}"));

    private static string Root => Directory.Exists("/dev/shm") ? "/dev/shm" : System.IO.Path.GetTempPath();

    public string Path(string name) => System.IO.Path.Combine(_directory.FullName, name);

    public void Dispose() => _directory.Delete(recursive: true);
}
