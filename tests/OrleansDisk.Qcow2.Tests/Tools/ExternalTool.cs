using System.ComponentModel;
using System.Diagnostics;

namespace OrleansDisk.Testing;

/// <summary>What a program printed, and how it ended.</summary>
public sealed record ToolResult(int ExitCode, string Output, string Errors)
{
    /// <summary>Fails the test when the program failed.</summary>
    public ToolResult Succeeded()
    {
        Assert.True(ExitCode == 0, $"exit code {ExitCode}\n{Output}\n{Errors}");
        return this;
    }
}

/// <summary>Runs the real tools that images are compared with.</summary>
public static class ExternalTool
{
    private static readonly TimeSpan Limit = TimeSpan.FromSeconds(60);

    public static ToolResult QemuImg(string directory, params string[] arguments) =>
        Run("qemu-img", "qemu-utils", directory, arguments);

    /// <summary>Runs qemu-io commands on a qcow2 image.</summary>
    public static ToolResult QemuIo(string file, params string[] commands)
    {
        var arguments = new List<string> { "-f", "qcow2" };
        foreach (string command in commands)
            arguments.AddRange(["-c", command]);
        arguments.Add(file);
        return Run("qemu-io", "qemu-utils", Path.GetDirectoryName(file)!, arguments);
    }

    /// <summary>Runs a program to its end; a missing one fails the test with the package that has it.</summary>
    public static ToolResult Run(string program, string debianPackage, string directory, IReadOnlyList<string> arguments)
    {
        // QEMU times its key derivation with a clock that on some hosts stands still for too long, and gives up.
        ToolResult result;
        int attempt = 0;
        do
            result = RunOnce(program, debianPackage, directory, arguments);
        while (result.Errors.Contains("Unable to get accurate CPU usage", StringComparison.Ordinal) && ++attempt < 50);
        return result;
    }

    private static ToolResult RunOnce(string program, string debianPackage, string directory, IReadOnlyList<string> arguments)
    {
        var start = new ProcessStartInfo(program, arguments)
        {
            WorkingDirectory = directory,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            RedirectStandardInput = true,
        };
        try
        {
            using Process process = Process.Start(start)!;
            process.StandardInput.Close();
            Task<string> errors = process.StandardError.ReadToEndAsync();
            Task<string> output = process.StandardOutput.ReadToEndAsync();
            if (!process.WaitForExit(Limit))
            {
                process.Kill();
                Assert.Fail($"{program} {string.Join(' ', arguments)} did not end");
            }
            return new ToolResult(process.ExitCode, output.Result, errors.Result);
        }
        catch (Win32Exception e)
        {
            throw new InvalidOperationException(
                $"{program} can't be started ({e.Message}); it is in the Debian package {debianPackage}", e);
        }
    }
}
