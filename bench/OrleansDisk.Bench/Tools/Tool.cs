using System.ComponentModel;
using System.Diagnostics;

namespace OrleansDisk.Bench.Tools;

/// <summary>Programs that run to their end.</summary>
internal static class Tool
{
    /// <summary>Runs a program and returns what it printed.</summary>
    /// <exception cref="BenchException">It is missing, or its exit code is not 0.</exception>
    public static async Task<string> RunAsync(string program, IEnumerable<string> arguments, CancellationToken cancellation)
    {
        (int exitCode, string output, string errors) = await TryAsync(program, arguments, cancellation);
        return exitCode == 0
            ? output : throw new BenchException($"{program} {string.Join(' ', arguments)}: exit code {exitCode}\n{output}{errors}");
    }

    /// <summary>Runs a program that may fail.</summary>
    /// <exception cref="BenchException">It is missing.</exception>
    public static async Task<(int ExitCode, string Output, string Errors)> TryAsync(
        string program, IEnumerable<string> arguments, CancellationToken cancellation)
    {
        using Process process = Start(new ProcessStartInfo(program, arguments)
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        });
        try
        {
            Task<string> output = process.StandardOutput.ReadToEndAsync(cancellation);
            Task<string> errors = process.StandardError.ReadToEndAsync(cancellation);
            await process.WaitForExitAsync(cancellation);
            return (process.ExitCode, await output, await errors);
        }
        catch (OperationCanceledException)
        {
            process.Kill(entireProcessTree: true);
            await process.WaitForExitAsync(CancellationToken.None);
            throw;
        }
    }

    public static Process Start(ProcessStartInfo start)
    {
        try
        {
            return Process.Start(start)!;
        }
        catch (Win32Exception e)
        {
            throw new BenchException($"{start.FileName}: {e.Message}");
        }
    }
}
