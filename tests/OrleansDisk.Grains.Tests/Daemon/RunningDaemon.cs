using System.Diagnostics;
using System.Runtime.InteropServices;
using System.Text;
using OrleansDisk.Grains.Tests.Fixtures;

namespace OrleansDisk.Grains.Tests.Daemon;

/// <summary>odiskd as a process of its own, on a unix socket, with one pool, "vm".</summary>
internal sealed partial class RunningDaemon : IDisposable
{
    public const int Terminate = 15;
    public const int Interrupt = 2;

    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(60);

    private readonly StringBuilder _log = new();
    private readonly Process _process;
    private readonly string _socket;

    private RunningDaemon(string socket, string notifySocket, string[] arguments)
    {
        _socket = socket;
        _process = Start(notifySocket, arguments);
        _process.OutputDataReceived += Note;
        _process.ErrorDataReceived += Note;
        _process.BeginOutputReadLine();
        _process.BeginErrorReadLine();
    }

    public string LogText
    {
        get
        {
            lock (_log)
                return _log.ToString();
        }
    }

    public bool HasExited => _process.HasExited;

    /// <summary>Starts the daemon and waits until it listens.</summary>
    public static Task<RunningDaemon> StartAsync(PoolDirectory pool, params string[] arguments) =>
        StartNotifyingAsync(pool, "", arguments);

    /// <summary>The same, with a service manager to be told.</summary>
    public static async Task<RunningDaemon> StartNotifyingAsync(PoolDirectory pool, string notifySocket, params string[] arguments)
    {
        string socket = pool.File("nbd.sock");
        var daemon = new RunningDaemon(socket, notifySocket, ["--pool", $"vm={pool.Path}", "--unix", socket, .. arguments]);
        await Eventually.TrueAsync(
            () => daemon.HasExited || daemon.LogText.Contains("odiskd[100]", StringComparison.Ordinal), "odiskd has started");
        Assert.False(daemon.HasExited, daemon.LogText);
        return daemon;
    }

    /// <summary>Runs it where it must end by itself.</summary>
    public static async Task<(int ExitCode, string Output)> RunAsync(params string[] arguments)
    {
        using var daemon = new RunningDaemon("", "", arguments);
        int exitCode = await daemon.EndAsync();
        return (exitCode, daemon.LogText);
    }

    public string Uri(string export) => $"nbd+unix:///{export}?socket={_socket}";

    public void Signal(int signal) => Assert.Equal(0, Kill(_process.Id, signal));

    public async Task<int> StopAsync(int signal = Terminate)
    {
        Signal(signal);
        return await EndAsync();
    }

    /// <summary>The end of a process that no signal handler sees.</summary>
    public async Task CrashAsync()
    {
        _process.Kill();
        await EndAsync();
    }

    public async Task<int> EndAsync()
    {
        using var limit = new CancellationTokenSource(Patience);
        try
        {
            await _process.WaitForExitAsync(limit.Token);
        }
        catch (OperationCanceledException)
        {
            Assert.Fail($"odiskd did not end within {Patience.TotalSeconds} s: {LogText}");
        }
        return _process.ExitCode;
    }

    public void Dispose()
    {
        if (!_process.HasExited)
            _process.Kill();
        _process.Dispose();
    }

    private static Process Start(string notifySocket, string[] arguments)
    {
        string program = Path.Combine(AppContext.BaseDirectory, "odiskd.dll");
        Assert.True(File.Exists(program), $"{program} was not built");
        var start = new ProcessStartInfo("dotnet") { RedirectStandardOutput = true, RedirectStandardError = true };
        start.Environment["NOTIFY_SOCKET"] = notifySocket;
        start.ArgumentList.Add(program);
        foreach (string argument in arguments)
            start.ArgumentList.Add(argument);
        return Process.Start(start)!;
    }

    private void Note(object sender, DataReceivedEventArgs line)
    {
        lock (_log)
            _log.AppendLine(line.Data);
    }

    [LibraryImport("libc", EntryPoint = "kill")]
    private static partial int Kill(int process, int signal);
}
