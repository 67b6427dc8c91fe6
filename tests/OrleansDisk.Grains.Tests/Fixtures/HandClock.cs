namespace OrleansDisk.Grains.Tests.Fixtures;

/// <summary>A clock that stands still until the test moves it; then every timer fires once.</summary>
internal sealed class HandClock : TimeProvider
{
    private readonly Lock _gate = new();
    private readonly List<HandTimer> _timers = [];
    private DateTimeOffset _now = new(2026, 1, 1, 0, 0, 0, TimeSpan.Zero);

    public override long TimestampFrequency => TimeSpan.TicksPerSecond;

    public override DateTimeOffset GetUtcNow() => _now;

    public override long GetTimestamp() => _now.Ticks;

    public override ITimer CreateTimer(TimerCallback callback, object? state, TimeSpan dueTime, TimeSpan period)
    {
        var timer = new HandTimer(() => callback(state));
        lock (_gate)
            _timers.Add(timer);
        return timer;
    }

    public void Advance(TimeSpan time)
    {
        HandTimer[] timers;
        lock (_gate)
        {
            _now += time;
            timers = [.. _timers];
        }
        Array.ForEach(timers, timer => timer.Fire());
    }

    private sealed class HandTimer(Action fire) : ITimer
    {
        private bool _isDisposed;

        public void Fire()
        {
            if (!_isDisposed)
                fire();
        }

        public bool Change(TimeSpan dueTime, TimeSpan period) => true;

        public void Dispose() => _isDisposed = true;

        public ValueTask DisposeAsync()
        {
            _isDisposed = true;
            return ValueTask.CompletedTask;
        }
    }
}
