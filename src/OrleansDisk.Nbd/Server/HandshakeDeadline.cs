namespace OrleansDisk.Nbd.Server;

/// <summary>Shuts a connection down when its client has used up the time for the handshake.</summary>
internal sealed class HandshakeDeadline : IDisposable
{
    private readonly TimeProvider _time;
    private readonly ITimer _timer;
    private TimeSpan _left;
    private long _since;

    /// <param name="limit">The client's time, counted from now.</param>
    /// <param name="time">Where time comes from.</param>
    /// <param name="shutDown">Called once, on another thread.</param>
    public HandshakeDeadline(TimeSpan limit, TimeProvider time, Action shutDown)
    {
        _time = time;
        _left = limit;
        _since = time.GetTimestamp();
        _timer = time.CreateTimer(
            _ =>
            {
                HasPassed = true;
                shutDown();
            },
            null, limit, Timeout.InfiniteTimeSpan);
    }

    public bool HasPassed { get; private set; }

    /// <summary>Stops the clock while the server itself is what takes time.</summary>
    public void Pause()
    {
        _timer.Change(Timeout.InfiniteTimeSpan, Timeout.InfiniteTimeSpan);
        _left -= _time.GetElapsedTime(_since);
    }

    public void Resume()
    {
        _since = _time.GetTimestamp();
        _timer.Change(_left > TimeSpan.Zero ? _left : TimeSpan.Zero, Timeout.InfiniteTimeSpan);
    }

    public void Dispose() => _timer.Dispose();
}
