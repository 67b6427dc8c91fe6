namespace OrleansDisk.Simulation.Host;

/// <summary>A running hash of everything that happens in a run: two runs of one seed must agree in it.</summary>
internal sealed class Trace
{
    private ulong _hash = 14695981039346656037;

    public ulong Hash => _hash;

    /// <summary>Events so far.</summary>
    public long Count { get; private set; }

    public void Add(string what, long a = 0, long b = 0)
    {
        Count++;
        foreach (char c in what)
            Mix(c);
        Mix((ulong)a);
        Mix((ulong)b);
    }

    private void Mix(ulong value)
    {
        _hash = (_hash ^ value) * 1099511628211;
        _hash ^= _hash >> 29;
    }
}
