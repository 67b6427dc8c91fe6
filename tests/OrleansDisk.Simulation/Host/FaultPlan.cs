namespace OrleansDisk.Simulation.Host;

/// <summary>How an operation of a file fails.</summary>
internal enum FaultKind
{
    /// <summary>EIO, and nothing was done.</summary>
    InputOutput,

    /// <summary>ENOSPC, and nothing was done.</summary>
    NoSpace,

    /// <summary>A part of the bytes was written, then EIO.</summary>
    ShortWrite,

    /// <summary>It takes very long, and succeeds.</summary>
    Slow,
}

/// <summary>One fault: the nth time that an event of this name happens.</summary>
/// <param name="Event">A name of <see cref="FileEvents"/>, or "any".</param>
/// <param name="Nth">From 1.</param>
/// <param name="Kind">What happens then.</param>
internal sealed record Fault(string Event, int Nth, FaultKind Kind);

/// <summary>The faults of a run, and how often each event has happened in it.</summary>
internal sealed class FaultPlan(IReadOnlyList<Fault> faults)
{
    private readonly Dictionary<string, int> _counts = [];

    /// <summary>How often each event has happened.</summary>
    public IReadOnlyDictionary<string, int> Counts => _counts;

    /// <summary>The event of the first fault that struck and was more than slow, or null.</summary>
    public string? Struck { get; private set; }

    /// <summary>What the first operation that failed threw.</summary>
    public Exception? Error { get; private set; }

    public void NoteError(Exception error) => Error ??= error;

    /// <summary>Counts an event; returns the fault that strikes it, if any.</summary>
    public FaultKind? Next(string name)
    {
        int count = Count(name);
        int any = Count(FileEvents.Any);
        foreach (Fault fault in faults)
        {
            if ((fault.Event == name && fault.Nth == count) || (fault.Event == FileEvents.Any && fault.Nth == any))
            {
                if (fault.Kind != FaultKind.Slow)
                    Struck ??= name;
                return fault.Kind;
            }
        }
        return null;
    }

    private int Count(string name)
    {
        _counts.TryGetValue(name, out int count);
        return _counts[name] = count + 1;
    }
}
