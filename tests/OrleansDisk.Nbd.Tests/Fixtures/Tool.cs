using System.ComponentModel;
using System.Diagnostics;

namespace OrleansDisk.Nbd.Tests.Fixtures;

/// <summary>Runs a real NBD client. A missing one fails the test and names the package.</summary>
internal static class Tool
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(40);

    private static readonly Dictionary<string, string> Packages = new()
    {
        ["nbdinfo"] = "libnbd-bin",
        ["nbdcopy"] = "libnbd-bin",
        ["nbdkit"] = "nbdkit",
        ["fio"] = "fio",
        ["qemu-img"] = "qemu-utils",
        ["qemu-io"] = "qemu-utils",
        ["/usr/bin/python3"] = "python3-libnbd",
    };

    /// <summary>Runs it to the end and returns what it printed; a failure of the tool fails the test.</summary>
    public static async Task<string> RunAsync(string tool, params string[] arguments)
    {
        var start = new ProcessStartInfo(tool) { RedirectStandardOutput = true, RedirectStandardError = true };
        foreach (string argument in arguments)
            start.ArgumentList.Add(argument);
        using Process process = Start(start);
        using var limit = new CancellationTokenSource(Patience);
        try
        {
            Task<string> errors = process.StandardError.ReadToEndAsync(limit.Token);
            string output = await process.StandardOutput.ReadToEndAsync(limit.Token);
            await process.WaitForExitAsync(limit.Token);
            Assert.True(process.ExitCode == 0, $"{tool} ended with {process.ExitCode}: {output}{await errors}");
            return output;
        }
        catch (OperationCanceledException)
        {
            process.Kill(entireProcessTree: true);
            Assert.Fail($"{tool} did not end within {Patience.TotalSeconds} s");
            throw;
        }
    }

    /// <summary>
    /// Runs a shell command around <paramref name="tool"/>. nbdkit --run needs the shell: as a child of a thread of
    /// this process, of which some end, it was told to quit at random moments.
    /// </summary>
    public static async Task<string> RunScriptAsync(string tool, string script)
    {
        await RunAsync(tool, "--version");
        return await RunAsync("sh", "-c", script + "; exit $?");
    }

    private static Process Start(ProcessStartInfo start)
    {
        try
        {
            return Process.Start(start)!;
        }
        catch (Win32Exception)
        {
            Assert.Fail($"{start.FileName} is missing: install the Debian package {Packages[start.FileName]}");
            throw;
        }
    }
}
