using System.ComponentModel;
using System.Diagnostics;

namespace OrleansDisk.Testing;

/// <summary>What a program printed, and how it ended.</summary>
internal sealed record ToolResult(int ExitCode, string Output, string Errors)
{
    /// <summary>Fails the test when the program failed.</summary>
    public ToolResult Succeeded()
    {
        return ExitCode == 0 ? this : throw new InvalidOperationException($"exit code {ExitCode}\n{Output}\n{Errors}");
    }
}

/// <summary>
/// Runs QEMU's and other people's programs. One that is missing fails the test and names its package: no test is left out for it.
/// </summary>
internal static class Tool
{
    private static readonly TimeSpan _patience = TimeSpan.FromSeconds(180);

    private static readonly Dictionary<string, string> _packages = new()
    {
        ["qemu-img"] = "qemu-utils",
        ["qemu-io"] = "qemu-utils",
        ["qemu-nbd"] = "qemu-utils",
        ["nbdinfo"] = "libnbd-bin",
        ["nbdcopy"] = "libnbd-bin",
        ["/usr/bin/python3"] = "python3-libnbd",
        ["7zz"] = "7zip",
        ["losetup"] = "mount",
        ["kill"] = "procps",
    };

    /// <summary>Runs a program to its end, which must be a success, and returns what it printed.</summary>
    public static string Run(string program, params string[] arguments) => Output(program, arguments, Complete(new ProcessStartInfo(program, arguments)));

    /// <inheritdoc cref="Run"/>
    public static async Task<string> RunAsync(string program, params string[] arguments) =>
        Output(program, arguments, await CompleteAsync(new ProcessStartInfo(program, arguments)));

    /// <summary>Runs a program to its end; what it printed includes its errors.</summary>
    public static (int ExitCode, string Output) Try(string program, params string[] arguments)
    {
        ToolResult result = Complete(new ProcessStartInfo(program, arguments));
        return (result.ExitCode, result.Output + result.Errors);
    }

    /// <inheritdoc cref="Try"/>
    public static async Task<(int ExitCode, string Output)> TryAsync(string program, params string[] arguments)
    {
        ToolResult result = await CompleteAsync(new ProcessStartInfo(program, arguments));
        return (result.ExitCode, result.Output + result.Errors);
    }

    /// <summary>
    /// Runs a shell command around <paramref name="program"/>. nbdkit --run needs the shell: as a child of a thread of
    /// this process, of which some end, it was told to quit at random moments.
    /// </summary>
    public static async Task<string> RunScriptAsync(string program, string script)
    {
        await RunAsync(program, "--version");
        return await RunAsync("sh", "-c", script + "; exit $?");
    }

    /// <summary>Starts a program whose output the test reads itself.</summary>
    public static Process Start(string program, params string[] arguments) =>
        Start(new ProcessStartInfo(program, arguments) { RedirectStandardOutput = true, RedirectStandardError = true });

    /// <inheritdoc cref="Start(string, string[])"/>
    /// <param name="start">What to start.</param>
    /// <param name="package">The Debian package that has it; null: one that is known here.</param>
    public static Process Start(ProcessStartInfo start, string? package = null)
    {
        try
        {
            return Process.Start(start)!;
        }
        catch (Win32Exception e)
        {
            package ??= _packages.GetValueOrDefault(start.FileName, start.FileName);
            throw new InvalidOperationException($"{start.FileName} can't be started ({e.Message}); it is in the Debian package {package}", e);
        }
    }

    /// <summary>Runs a program to its end, without input.</summary>
    public static ToolResult Complete(ProcessStartInfo start, string? package = null) => CompleteAsync(start, package).GetAwaiter().GetResult();

    private static async Task<ToolResult> CompleteAsync(ProcessStartInfo start, string? package = null)
    {
        // QEMU times its key derivation with a clock that on some hosts stands still for too long, and gives up.
        const string outOfTime = "Unable to get accurate CPU usage";
        ToolResult result;
        int attempt = 0;
        do
            result = await CompleteOnceAsync(start, package).ConfigureAwait(false);
        while (result.Errors.Contains(outOfTime, StringComparison.Ordinal) && ++attempt < 50);
        return result;
    }

    private static async Task<ToolResult> CompleteOnceAsync(ProcessStartInfo start, string? package)
    {
        (start.RedirectStandardInput, start.RedirectStandardOutput, start.RedirectStandardError) = (true, true, true);
        using Process process = Start(start, package);
        using var limit = new CancellationTokenSource(_patience);
        try
        {
            // Whoever waits may be the only thread of a scheduler.
            process.StandardInput.Close();
            Task<string> errors = process.StandardError.ReadToEndAsync(limit.Token);
            string output = await process.StandardOutput.ReadToEndAsync(limit.Token).ConfigureAwait(false);
            await process.WaitForExitAsync(limit.Token).ConfigureAwait(false);
            return new ToolResult(process.ExitCode, output, await errors.ConfigureAwait(false));
        }
        catch (OperationCanceledException)
        {
            process.Kill(entireProcessTree: true);
            throw new InvalidOperationException($"{start.FileName} {string.Join(' ', start.ArgumentList)} did not end within {_patience.TotalSeconds} s");
        }
    }

    private static string Output(string program, string[] arguments, ToolResult result) => result.ExitCode == 0 ? result.Output
        : throw new InvalidOperationException($"{program} {string.Join(' ', arguments)} ended with {result.ExitCode}:\n{result.Output}{result.Errors}");
}
