namespace OrleansDisk.Simulation.Crash;

/// <summary>A write of which sectors [LostFrom, LostTo) did not reach stable storage: a prefix, a suffix or a hole.</summary>
internal readonly record struct Tear(int LostFrom, int LostTo)
{
    public bool Keeps(int slot) => slot < LostFrom || slot >= LostTo;
}

/// <summary>Which of the unflushed writes reached stable storage, and how one of them was torn.</summary>
internal sealed class CrashState(int writeCount)
{
    private readonly ulong[] _reached = new ulong[(writeCount + 63) / 64];

    /// <summary>The write that was torn, or -1.</summary>
    public int TornWrite { get; set; } = -1;

    public Tear Tear { get; set; }

    public bool this[int write]
    {
        get => (_reached[write >> 6] >> write & 1) != 0;
        set
        {
            if (value)
                _reached[write >> 6] |= 1UL << write;
            else
                _reached[write >> 6] &= ~(1UL << write);
        }
    }

    /// <summary>Makes it the state whose number has a bit for each write.</summary>
    public void SetAll(ulong reached)
    {
        if (_reached.Length > 0)
            _reached[0] = reached;
    }

    /// <summary>Whether the nth sector of a write is on stable storage.</summary>
    public bool Holds(int write, int slot) => this[write] && (write != TornWrite || Tear.Keeps(slot));

    public override string ToString()
    {
        var reached = Enumerable.Range(0, writeCount).Where(write => this[write]).ToList();
        string torn = TornWrite < 0 ? "" : $", write {TornWrite} without its sectors {Tear.LostFrom} to {Tear.LostTo - 1}";
        return $"reached of {writeCount}: {{{string.Join(",", reached)}}}{torn}";
    }
}
