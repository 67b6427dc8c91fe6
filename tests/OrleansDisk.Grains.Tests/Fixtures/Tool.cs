using System.ComponentModel;
using System.Diagnostics;

namespace OrleansDisk.Grains.Tests.Fixtures;

/// <summary>Runs other people's programs. One that is missing fails the test and names its package.</summary>
internal static class Tool
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(90);

    private static readonly Dictionary<string, string> Packages = new()
    {
        ["qemu-img"] = "qemu-utils",
        ["qemu-io"] = "qemu-utils",
        ["nbdinfo"] = "libnbd-bin",
        ["nbdcopy"] = "libnbd-bin",
        ["nbdkit"] = "nbdkit",
        ["fio"] = "fio",
    };

    /// <summary>Runs it to the end, which must be a success.</summary>
    public static async Task<string> RunAsync(string tool, params string[] arguments)
    {
        (int exitCode, string output) = await TryAsync(tool, arguments);
        Assert.True(exitCode == 0, $"{tool} {string.Join(' ', arguments)} ended with {exitCode}: {output}");
        return output;
    }

    /// <summary>Runs it to the end; what it printed includes its errors.</summary>
    public static async Task<(int ExitCode, string Output)> TryAsync(string tool, params string[] arguments)
    {
        using Process process = Start(tool, arguments);
        using var limit = new CancellationTokenSource(Patience);
        try
        {
            Task<string> errors = process.StandardError.ReadToEndAsync(limit.Token);
            string output = await process.StandardOutput.ReadToEndAsync(limit.Token);
            await process.WaitForExitAsync(limit.Token);
            return (process.ExitCode, output + await errors);
        }
        catch (OperationCanceledException)
        {
            process.Kill(entireProcessTree: true);
            Assert.Fail($"{tool} did not end within {Patience.TotalSeconds} s");
            throw;
        }
    }

    public static Process Start(string tool, params string[] arguments)
    {
        var start = new ProcessStartInfo(tool) { RedirectStandardOutput = true, RedirectStandardError = true };
        foreach (string argument in arguments)
            start.ArgumentList.Add(argument);
        try
        {
            return Process.Start(start)!;
        }
        catch (Win32Exception)
        {
            Assert.Fail($"{tool} is missing: install the Debian package {Packages.GetValueOrDefault(tool, tool)}");
            throw;
        }
    }
}
