using OrleansDisk.Qcow2.Check;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Grains.Tests.Fixtures;

/// <summary>A directory for the images of one test, in memory where the machine has such a place.</summary>
internal sealed class PoolDirectory : IDisposable
{
    private readonly DirectoryInfo _directory = Directory.CreateDirectory(
        System.IO.Path.Combine(Directory.Exists("/dev/shm") ? "/dev/shm" : System.IO.Path.GetTempPath(), $"odiskd-{Guid.NewGuid():n}"));

    public string Path => _directory.FullName;

    public string File(string name) => System.IO.Path.Combine(Path, name);

    /// <summary>Makes an image with qemu-img; its name has no extension.</summary>
    public Task CreateAsync(string image, string size, params string[] options) =>
        Tool.RunAsync("qemu-img", ["create", "-q", "-f", "qcow2", .. options, File(image + ".qcow2"), size]);

    /// <summary>Every image that the test left must be without a fault, for our checker and for QEMU's.</summary>
    public async Task CheckAllAsync(bool leaksAllowed = false)
    {
        foreach (string path in Directory.EnumerateFiles(Path, "*.qcow2"))
        {
            CheckReport report;
            await using (var file = LocalBlockFile.Open(path, ImageAccess.Read))
                report = await ImageCheck.RunAsync(file, new CheckOptions());
            bool isGood = report.CorruptionCount == 0 && report.CheckErrorCount == 0 && (leaksAllowed || report.LeakCount == 0);
            Assert.True(isGood, $"{path}: {string.Join("; ", report.Findings.Select(finding => finding.Message).Take(10))}");
            (int exitCode, string output) = await Tool.TryAsync("qemu-img", "check", "-f", "qcow2", path);
            Assert.True(exitCode == 0 || (leaksAllowed && exitCode == 3), output); // 3: leaked clusters, nothing worse
        }
    }

    public void Dispose() => _directory.Delete(recursive: true);
}
