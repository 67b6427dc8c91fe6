using System.Security.Cryptography;
using OrleansDisk.Qcow2.Check;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Interop.Tests;

/// <summary>What QEMU, and the checker of this project, say of an image file.</summary>
internal static class Judge
{
    /// <summary>Neither finds anything, leaks included.</summary>
    public static async Task FindsCleanAsync(string path)
    {
        Tool.Run("qemu-img", "check", "-q", "-f", "qcow2", path);
        CheckReport report = await CheckAsync(path);
        Assert.True(report.IsConsistent, $"{path}: {string.Join('\n', report.Findings.Take(10))}");
    }

    /// <summary>Neither finds anything but leaked clusters.</summary>
    public static async Task FindsAtMostLeaksAsync(string path)
    {
        (int status, string output) = Tool.Try("qemu-img", "check", "-f", "qcow2", path);
        Assert.True(status is 0 or 3, $"qemu-img check ended with {status}:\n{output}");
        await OwnCheckFindsAtMostLeaksAsync(path);
    }

    /// <summary>The checker of this project, which needs no process, finds nothing but leaked clusters.</summary>
    public static async Task OwnCheckFindsAtMostLeaksAsync(string path)
    {
        CheckReport report = await CheckAsync(path);
        Assert.True(report is { CorruptionCount: 0, CheckErrorCount: 0 }, $"{path}: {string.Join('\n', report.Findings.Take(10))}");
    }

    /// <summary>QEMU reads exactly these bytes from the image.</summary>
    public static void ReadsAs(string path, byte[] expected)
    {
        string raw = path + ".expected";
        File.WriteAllBytes(raw, expected);
        Tool.Run("qemu-img", "compare", "-q", "-f", "raw", "-F", "qcow2", raw, path);
        File.Delete(raw);
    }

    /// <summary>QEMU reads these bytes from an internal snapshot of the image.</summary>
    public static byte[] ReadSnapshot(string path, string name)
    {
        string raw = path + ".snapshot";
        Tool.Run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", "-l", $"snapshot.name={name}", path, raw);
        byte[] bytes = File.ReadAllBytes(raw);
        File.Delete(raw);
        return bytes;
    }

    /// <summary>Something to compare a file with that must not change.</summary>
    public static string Fingerprint(string path) => Convert.ToHexString(SHA256.HashData(File.ReadAllBytes(path)));

    private static async Task<CheckReport> CheckAsync(string path)
    {
        await using var file = LocalBlockFile.Open(path, ImageAccess.Read);
        return await ImageCheck.RunAsync(file, new CheckOptions());
    }
}
