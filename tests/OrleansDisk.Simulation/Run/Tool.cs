using System.Diagnostics;

namespace OrleansDisk.Simulation.Run;

/// <summary>Programs that make images and judge them.</summary>
internal static class Tool
{
    /// <exception cref="InvalidOperationException">The program is missing, or fails.</exception>
    public static void Run(string program, params string[] arguments)
    {
        (int status, string output) = Try(program, arguments);
        if (status != 0)
            throw new InvalidOperationException($"{program} {string.Join(' ', arguments)} exits {status}: {output}");
    }

    /// <summary>Runs a program to its end.</summary>
    /// <exception cref="InvalidOperationException">It is missing.</exception>
    public static (int Status, string Output) Try(string program, params string[] arguments)
    {
        var start = new ProcessStartInfo(program, arguments) { RedirectStandardOutput = true, RedirectStandardError = true };
        try
        {
            using Process process = Process.Start(start)!;
            Task<string> errors = process.StandardError.ReadToEndAsync();
            string output = process.StandardOutput.ReadToEnd();
            process.WaitForExit();
            return (process.ExitCode, output + errors.GetAwaiter().GetResult());
        }
        catch (System.ComponentModel.Win32Exception e)
        {
            throw new InvalidOperationException($"{program} can't be run (Debian: apt-get install qemu-utils): {e.Message}", e);
        }
    }
}
