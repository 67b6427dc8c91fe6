using System.Diagnostics;

namespace OrleansDisk.Cli.Tests.Tools;

/// <summary>An odisk io that takes one command after the other.</summary>
internal sealed class IoProcess : IDisposable
{
    private static readonly TimeSpan _limit = TimeSpan.FromSeconds(60);

    private readonly Process _process;

    public IoProcess(TemporaryDirectory directory, string options)
    {
        var start = new ProcessStartInfo(Odisk.Program, ["io", "-t", "writeback", "--image-opts", options])
        {
            WorkingDirectory = directory.Directory,
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
        };
        _process = Process.Start(start)!;
    }

    /// <summary>Gives commands and waits for the first line that is an answer.</summary>
    public async Task ExpectAsync(string commands, string answer)
    {
        await _process.StandardInput.WriteLineAsync(commands);
        await _process.StandardInput.FlushAsync();
        using var limit = new CancellationTokenSource(_limit);
        string? line;
        do
            line = await _process.StandardOutput.ReadLineAsync(limit.Token);
        while (line is not null && !IsAnswer(line));
        Assert.Contains(answer, line ?? "(the end)", StringComparison.Ordinal);

        static bool IsAnswer(string line) => !line.Contains(" ops; ", StringComparison.Ordinal);
    }

    /// <summary>Ends it and returns its exit code.</summary>
    public async Task<int> EndAsync()
    {
        _process.StandardInput.Close();
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
