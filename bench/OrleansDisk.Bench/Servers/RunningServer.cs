using System.Diagnostics;
using System.Globalization;
using System.Text;
using OrleansDisk.Bench.Tools;

namespace OrleansDisk.Bench.Servers;

/// <summary>A server's process: started, held still while another one is measured, and ended.</summary>
internal sealed class RunningServer : IAsyncDisposable
{
    private const int MaxKeptOutput = 4096;

    private static readonly TimeSpan _startLimit = TimeSpan.FromSeconds(30);
    private static readonly TimeSpan _stopLimit = TimeSpan.FromSeconds(60);
    private static readonly double _ticksPerSecond = TicksPerSecond();

    private readonly Process _process;
    private readonly StringBuilder _output = new();

    private RunningServer(ProcessStartInfo start, Endpoint endpoint)
    {
        Endpoint = endpoint;
        start.RedirectStandardOutput = true;
        start.RedirectStandardError = true;
        _process = Tool.Start(start);
        _process.OutputDataReceived += (_, line) => Keep(line.Data);
        _process.ErrorDataReceived += (_, line) => Keep(line.Data);
        _process.BeginOutputReadLine();
        _process.BeginErrorReadLine();
    }

    public Endpoint Endpoint { get; }

    public string Uri => Endpoint.Uri;

    public int ProcessId => _process.Id;

    /// <summary>CPU time of all threads so far, user and system.</summary>
    public TimeSpan ProcessorTime
    {
        get
        {
            string[] fields = File.ReadAllText($"/proc/{_process.Id}/stat").Split(' ');
            // The second field, the program's name, has no space in any of our servers.
            long ticks = long.Parse(fields[13], CultureInfo.InvariantCulture) + long.Parse(fields[14], CultureInfo.InvariantCulture);
            return TimeSpan.FromSeconds(ticks / _ticksPerSecond);
        }
    }

    /// <summary>Starts a server and waits until a client can use the export.</summary>
    /// <exception cref="BenchException">It ended, or does not answer.</exception>
    public static async Task<RunningServer> StartAsync(
        ServerProgram program, ServerStart start, CancellationToken cancellation, string? probe = null)
    {
        var info = new ProcessStartInfo(program.Program, program.Arguments(start));
        if (probe is not null)
        {
            info.Environment["DOTNET_STARTUP_HOOKS"] = Path.Combine(AppContext.BaseDirectory, "OrleansDisk.Probe.dll");
            info.Environment["ODISK_PROBE"] = probe;
        }
        var server = new RunningServer(info, start.Endpoint);
        try
        {
            await server.WaitUntilReadyAsync(program.Name, cancellation);
            return server;
        }
        catch
        {
            await server.DisposeAsync();
            throw;
        }
    }

    public void Pause() => _ = Signals.Send(_process.Id, Signals.Stop);

    public void Resume() => _ = Signals.Send(_process.Id, Signals.Continue);

    public async ValueTask DisposeAsync()
    {
        Resume();
        _ = Signals.Send(_process.Id, Signals.Terminate);
        using var limit = new CancellationTokenSource(_stopLimit);
        try
        {
            await _process.WaitForExitAsync(limit.Token);
        }
        catch (OperationCanceledException)
        {
            _process.Kill();
            await _process.WaitForExitAsync(CancellationToken.None);
        }
        _process.Dispose();
        if (Endpoint.SocketPath is { } path)
            File.Delete(path);
    }

    private async Task WaitUntilReadyAsync(string name, CancellationToken cancellation)
    {
        var waited = Stopwatch.StartNew();
        while ((await Tool.TryAsync("nbdinfo", ["--size", Uri], cancellation)).ExitCode != 0)
        {
            if (_process.HasExited)
                throw new BenchException($"{name} ended with exit code {_process.ExitCode}:\n{Output()}");
            if (waited.Elapsed > _startLimit)
                throw new BenchException($"{name} does not answer on {Uri}:\n{Output()}");
            await Task.Delay(20, cancellation);
        }
    }

    private void Keep(string? line)
    {
        lock (_output)
        {
            if (line is not null && _output.Length < MaxKeptOutput)
                _output.AppendLine(line);
        }
    }

    private string Output()
    {
        lock (_output)
            return _output.ToString();
    }

    private static double TicksPerSecond() => double.Parse(
        Tool.RunAsync("getconf", ["CLK_TCK"], CancellationToken.None).GetAwaiter().GetResult(), CultureInfo.InvariantCulture);
}
