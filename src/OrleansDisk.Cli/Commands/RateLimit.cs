using System.Diagnostics;

namespace OrleansDisk.Cli.Commands;

/// <summary>Holds writes up so that they come to no more than so many bytes a second.</summary>
internal sealed class RateLimit(long bytesPerSecond)
{
    private readonly Stopwatch _time = Stopwatch.StartNew();
    private long _bytes;

    /// <summary>Waits until it is the turn of so many bytes.</summary>
    public async ValueTask WaitAsync(long bytes)
    {
        var due = TimeSpan.FromSeconds((double)_bytes / bytesPerSecond);
        _bytes += bytes;
        if (due > _time.Elapsed)
            await Task.Delay(due - _time.Elapsed);
    }
}
