using System.Diagnostics;

namespace OrleansDisk.Interop.Tests;

/// <summary>Runs QEMU's and other people's programs. One that is missing fails the test: it is never skipped.</summary>
internal static class Tool
{
    private static readonly Dictionary<string, string> PackageOf = new()
    {
        ["qemu-img"] = "qemu-utils",
        ["qemu-io"] = "qemu-utils",
        ["qemu-nbd"] = "qemu-utils",
        ["7zz"] = "7zip",
        ["fio"] = "fio",
        ["nbdinfo"] = "libnbd-bin",
        ["nbdcopy"] = "libnbd-bin",
        ["nbdkit"] = "nbdkit",
    };

    /// <summary>Runs a program to its end and returns what it printed; an exit status other than 0 fails the test.</summary>
    public static string Run(string program, params string[] arguments)
    {
        (int status, string output) = Try(program, arguments);
        Assert.True(status == 0, $"{program} {string.Join(' ', arguments)} ended with {status}:\n{output}");
        return output;
    }

    /// <summary>Runs a program to its end.</summary>
    public static (int Status, string Output) Try(string program, params string[] arguments)
    {
        // QEMU times its key derivation with a clock that on some hosts stands still for too long, and gives up.
        (int Status, string Output) result;
        int attempt = 0;
        do
            result = RunOnce(program, arguments);
        while (result.Output.Contains("Unable to get accurate CPU usage", StringComparison.Ordinal) && ++attempt < 50);
        return result;
    }

    private static (int Status, string Output) RunOnce(string program, string[] arguments)
    {
        var start = new ProcessStartInfo(program, arguments) { RedirectStandardOutput = true, RedirectStandardError = true };
        using Process process = Start(start);
        Task<string> errors = process.StandardError.ReadToEndAsync();
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return (process.ExitCode, output + errors.Result);
    }

    public static Process Start(ProcessStartInfo start)
    {
        try
        {
            return Process.Start(start)!;
        }
        catch (System.ComponentModel.Win32Exception)
        {
            string package = PackageOf.GetValueOrDefault(start.FileName, start.FileName);
            throw new InvalidOperationException($"{start.FileName} is not installed: apt-get install {package}");
        }
    }
}
