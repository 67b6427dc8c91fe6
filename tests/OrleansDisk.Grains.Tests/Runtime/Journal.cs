using System.Collections.Concurrent;

namespace OrleansDisk.Grains.Tests.Runtime;

/// <summary>What grains report to their test, and what the test tells them: both live in one process.</summary>
public sealed class Journal
{
    private static readonly TimeSpan s_deadline = TimeSpan.FromSeconds(30);

    private readonly ConcurrentDictionary<string, TaskCompletionSource> _signals = new();
    private readonly List<string> _entries = [];

    /// <summary>The object that a grain last received or returned, as the grain sees it.</summary>
    public object? Held { get; set; }

    /// <summary>Keys of grains that refuse to be activated.</summary>
    public ConcurrentDictionary<string, Exception> Refusals { get; } = new();

    public void Write(string entry)
    {
        lock (_entries)
            _entries.Add(entry);
        Signal(entry);
    }

    /// <summary>The entries so far that start with <paramref name="prefix"/>, in order.</summary>
    public string[] Read(string prefix = "")
    {
        lock (_entries)
            return [.. _entries.Where(entry => entry.StartsWith(prefix, StringComparison.Ordinal))];
    }

    public void Signal(string name) => SignalOf(name).TrySetResult();

    /// <summary>Completes when the entry is written or the signal given; fails after a long time.</summary>
    public Task When(string name) => SignalOf(name).Task.WaitAsync(s_deadline);

    private TaskCompletionSource SignalOf(string name) =>
        _signals.GetOrAdd(name, _ => new(TaskCreationOptions.RunContinuationsAsynchronously));
}
