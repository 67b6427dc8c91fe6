using System.Diagnostics;
using System.Globalization;
using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Cli.Output;

namespace OrleansDisk.Cli.Nbd;

/// <summary>
/// Runs the server in the background (--fork). The program starts itself again: the first process ends when the second
/// one listens, or has failed. A fork() alone would leave the second one without the runtime's threads.
/// </summary>
internal static class Background
{
    /// <summary>The variable that tells the second process what it is.</summary>
    private const string ChildVariable = "ODISK_NBD_BACKGROUND";

    private const int StandardOutput = 1;

    /// <summary>Whether this is the second process.</summary>
    public static bool IsChild { get; } = Environment.GetEnvironmentVariable(ChildVariable) is not null;

    /// <summary>Starts the second process and waits until it listens.</summary>
    /// <param name="arguments">The arguments of nbd.</param>
    /// <returns>The exit code: 0 when it listens.</returns>
    public static async Task<int> StartAsync(IEnumerable<string> arguments)
    {
        string program = Environment.ProcessPath ?? throw new CommandFailedException("--fork needs to know the program's own file");
        // The second process must not keep this one's output open, or whoever reads it would wait for both.
        var start = new ProcessStartInfo(program)
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        if (Path.GetFileNameWithoutExtension(program) == "dotnet")
            start.ArgumentList.Add(Environment.GetCommandLineArgs()[0]);
        start.ArgumentList.Add("nbd");
        foreach (string argument in arguments)
            start.ArgumentList.Add(argument);
        start.Environment[ChildVariable] = "1";
        using Process child = Process.Start(start) ?? throw new CommandFailedException($"'{program}' could not be started");
        byte[] ready = new byte[1];
        if (await child.StandardOutput.BaseStream.ReadAsync(ready) == 1)
            return 0;
        string errors = await child.StandardError.ReadToEndAsync();
        await child.WaitForExitAsync();
        Terminal.WriteError(errors.TrimEnd('\n'));
        return child.ExitCode == 0 ? 1 : child.ExitCode;
    }

    /// <summary>In the second process: leaves the terminal's session.</summary>
    public static void Detach() => _ = SystemCalls.NewSession();

    /// <summary>In the second process: tells the first one that the server listens, and lets go of it.</summary>
    public static unsafe void TellReady()
    {
        byte ready = 1;
        _ = SystemCalls.Write(StandardOutput, &ready, 1);
        SystemCalls.RedirectToNull(0, 1, 2);
    }

    /// <summary>Writes this process's id into a file.</summary>
    public static void WritePidFile(string path)
    {
        try
        {
            File.WriteAllText(path, Environment.ProcessId.ToString(CultureInfo.InvariantCulture) + "\n");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new CommandFailedException($"Failed to write pid file '{path}': {e.Message}");
        }
    }

    /// <summary>Removes the file again, unless another process has written its own id there meanwhile.</summary>
    public static void RemovePidFile(string path)
    {
        if (File.Exists(path) && File.ReadAllText(path).Trim() == Environment.ProcessId.ToString(CultureInfo.InvariantCulture))
            File.Delete(path);
    }
}
