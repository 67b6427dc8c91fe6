using System.Diagnostics;
using System.Globalization;
using System.IO.Pipes;
using OrleansDisk.Cli.CommandLine;

namespace OrleansDisk.Cli.Nbd;

/// <summary>
/// Runs the server in the background (--fork). The program starts itself again with a pipe: the first process ends when
/// the second one listens, or has failed. A fork() alone would leave the second one without the runtime's threads.
/// </summary>
internal static class Background
{
    /// <summary>The variable in which the second process finds its end of the pipe.</summary>
    private const string ReadyVariable = "ODISK_NBD_READY_HANDLE";

    /// <summary>Whether this is the second process.</summary>
    public static bool IsChild => Environment.GetEnvironmentVariable(ReadyVariable) is not null;

    /// <summary>Starts the second process and waits until it listens.</summary>
    /// <param name="arguments">The arguments of nbd.</param>
    /// <returns>The exit code: 0 when it listens.</returns>
    public static async Task<int> StartAsync(IEnumerable<string> arguments)
    {
        string program = Environment.ProcessPath ?? throw new CommandFailedException("--fork needs to know the program's own file");
        var start = new ProcessStartInfo(program) { UseShellExecute = false };
        if (Path.GetFileNameWithoutExtension(program) == "dotnet")
            start.ArgumentList.Add(Environment.GetCommandLineArgs()[0]);
        start.ArgumentList.Add("nbd");
        foreach (string argument in arguments)
            start.ArgumentList.Add(argument);
        using var pipe = new AnonymousPipeServerStream(PipeDirection.In, HandleInheritability.Inheritable);
        start.Environment[ReadyVariable] = pipe.GetClientHandleAsString();
        using Process child = Process.Start(start) ?? throw new CommandFailedException($"'{program}' could not be started");
        pipe.DisposeLocalCopyOfClientHandle();
        byte[] ready = new byte[1];
        if (await pipe.ReadAsync(ready) == 1)
            return 0;
        await child.WaitForExitAsync();
        return child.ExitCode == 0 ? 1 : child.ExitCode;
    }

    /// <summary>In the second process: leaves the terminal's session.</summary>
    public static void Detach() => _ = SystemCalls.NewSession();

    /// <summary>In the second process: lets go of the terminal, and tells the first one that the server listens.</summary>
    public static void TellReady()
    {
        string handle = Environment.GetEnvironmentVariable(ReadyVariable)!;
        Environment.SetEnvironmentVariable(ReadyVariable, null);
        SystemCalls.RedirectToNull(0, 1, 2);
        using var pipe = new AnonymousPipeClientStream(PipeDirection.Out, handle);
        pipe.WriteByte(1);
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
}
