using System.Globalization;

namespace OrleansDisk.MicroBenchmarks;

/// <summary>A folder in memory that goes when it is disposed.</summary>
internal sealed class ScratchFolder : IDisposable
{
    private static int _count;

    private readonly string _path = System.IO.Path.Combine(
        "/dev/shm", string.Create(CultureInfo.InvariantCulture, $"odisk-micro.{Environment.ProcessId}.{Interlocked.Increment(ref _count)}"));

    public ScratchFolder() => Directory.CreateDirectory(_path);

    public string Path => _path;

    public string File(string name) => System.IO.Path.Combine(_path, name);

    public void Dispose() => Directory.Delete(_path, recursive: true);
}
