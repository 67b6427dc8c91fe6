using System.Diagnostics;
using System.Globalization;

namespace OrleansDisk.Cli.Tests.Tools;

/// <summary>An odisk nbd in the foreground, listening on a unix socket.</summary>
internal sealed class NbdProcess : IDisposable
{
    private static readonly TimeSpan _limit = TimeSpan.FromSeconds(30);

    private readonly Process _process;
    private readonly string _socket;

    private NbdProcess(Process process, string socket) => (_process, _socket) = (process, socket);

    public string Uri => $"nbd+unix:///?socket={_socket}";

    public static async Task<NbdProcess> StartAsync(TemporaryDirectory directory, params string[] arguments)
    {
        string socket = directory.File("socket");
        var start = new ProcessStartInfo(Odisk.Program, ["nbd", "-k", socket, .. arguments])
        {
            WorkingDirectory = directory.Directory,
            RedirectStandardError = true,
        };
        Process process = Process.Start(start)!;
        var waited = Stopwatch.StartNew();
        while (!File.Exists(socket))
        {
            if (process.HasExited)
                Assert.Fail($"odisk nbd ended: {await process.StandardError.ReadToEndAsync()}");
            Assert.True(waited.Elapsed < _limit, "odisk nbd does not listen");
            await Task.Delay(5);
        }
        return new NbdProcess(process, socket);
    }

    /// <summary>Sends a signal, TERM or INT, and returns the exit code.</summary>
    public Task<int> StopAsync(string signal)
    {
        string id = _process.Id.ToString(CultureInfo.InvariantCulture);
        ExternalTool.Run("kill", "procps", "/", ["-" + signal, id]).Succeeded();
        return WaitForExitAsync();
    }

    public async Task<int> WaitForExitAsync()
    {
        using var limit = new CancellationTokenSource(_limit);
        await _process.WaitForExitAsync(limit.Token);
        return _process.ExitCode;
    }

    public void Dispose()
    {
        if (!_process.HasExited)
            _process.Kill();
        _process.WaitForExit();
        _process.Dispose();
    }
}
