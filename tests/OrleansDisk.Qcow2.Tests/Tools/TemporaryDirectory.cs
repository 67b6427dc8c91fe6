namespace OrleansDisk.Testing;

/// <summary>A directory of one test's own, gone when the test ends.</summary>
public sealed class TemporaryDirectory : IDisposable
{
    public TemporaryDirectory() => Directory = System.IO.Directory.CreateTempSubdirectory("odisk-test-").FullName;

    public string Directory { get; }

    public string File(string name) => Path.Combine(Directory, name);

    public void Dispose() => System.IO.Directory.Delete(Directory, recursive: true);
}
