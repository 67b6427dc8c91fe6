namespace OrleansDisk.Simulation.Model;

/// <summary>Which snapshots an image has, and what each sector of them holds, whatever is under way.</summary>
internal sealed class SnapshotModel
{
    private readonly Dictionary<string, long[]> _kept = [];
    private readonly Dictionary<string, long[]> _leaving = [];
    private readonly HashSet<string> _coming = [];

    /// <summary>Those that came or went when the process died: until they are settled, a crash may leave them or not.</summary>
    private readonly Dictionary<string, (long[] Contents, bool IsThere)> _unsure = [];

    /// <summary>Whether there is, or may be, any.</summary>
    public bool Any => _kept.Count + _leaving.Count + _coming.Count + _unsure.Count > 0;

    /// <summary>A snapshot begins to be taken. False when one of that name may be there.</summary>
    public bool TryBegin(string name) =>
        !_kept.ContainsKey(name) && !_leaving.ContainsKey(name) && !_unsure.ContainsKey(name) && _coming.Add(name);

    /// <summary>It was not taken.</summary>
    public void Refused(string name) => _coming.Remove(name);

    /// <summary>It was taken.</summary>
    public void Keep(string name, ReadOnlySpan<byte> disk)
    {
        _coming.Remove(name);
        _kept[name] = Parse(disk);
    }

    /// <summary>A snapshot begins to go. False when none is there, or that is in doubt.</summary>
    public bool TryBeginDelete(string name)
    {
        if (!_kept.Remove(name, out long[]? contents))
            return false;
        _leaving.Add(name, contents);
        return true;
    }

    /// <summary>It has gone, or it has not.</summary>
    public void EndDelete(string name, bool hasGone)
    {
        _leaving.Remove(name, out long[]? contents);
        if (!hasGone)
            _kept.Add(name, contents!);
    }

    /// <summary>What a snapshot holds that is there for certain, or null.</summary>
    public IReadOnlyList<long>? Find(string name) => _kept.GetValueOrDefault(name);

    /// <summary>Holds the snapshots of a file against what must and may be there.</summary>
    /// <exception cref="SimulationFailure">One is missing, or was never taken, or has changed.</exception>
    public void Judge(IReadOnlyDictionary<string, byte[]> found)
    {
        foreach ((string name, byte[] disk) in found)
        {
            long[]? expected = _kept.GetValueOrDefault(name) ?? _leaving.GetValueOrDefault(name) ?? _unsure.GetValueOrDefault(name).Contents;
            if (expected is null && !_coming.Contains(name))
                throw new SimulationFailure("I8", $"there is a snapshot '{name}' that nobody took, or that was deleted");
            if (expected is not null && Parse(disk).AsSpan().CommonPrefixLength(expected) is var same && (same < expected.Length || same < disk.Length / SectorContent.Bytes))
                throw new SimulationFailure("I8", $"snapshot '{name}' has changed in sector {same}");
        }
        if (_kept.Keys.FirstOrDefault(name => !found.ContainsKey(name)) is { } missing)
            throw new SimulationFailure("I8", $"snapshot '{missing}' is gone");
    }

    /// <summary>A process died, and these are the snapshots that are there now.</summary>
    /// <param name="found">All bytes of each of them.</param>
    /// <param name="isDurable">Whether they are there on stable storage, too.</param>
    public void Restart(IReadOnlyDictionary<string, byte[]> found, bool isDurable)
    {
        Judge(found);
        foreach ((string name, long[] contents) in _leaving)
            _unsure[name] = (contents, found.ContainsKey(name));
        foreach (string name in _coming.Where(found.ContainsKey))
            _unsure[name] = (Parse(found[name]), IsThere: true);
        _leaving.Clear();
        _coming.Clear();
        if (!isDurable)
            return;
        foreach (string name in _unsure.Keys.ToArray())
            _unsure[name] = (_unsure[name].Contents, found.ContainsKey(name));
        Settle();
    }

    /// <summary>What the file says of them is on stable storage.</summary>
    public void Settle()
    {
        foreach ((string name, (long[] contents, bool isThere)) in _unsure)
        {
            if (isThere)
                _kept.Add(name, contents);
        }
        _unsure.Clear();
    }

    /// <summary>A copy for what is tried and thrown away.</summary>
    public SnapshotModel Clone()
    {
        var clone = new SnapshotModel();
        foreach ((string name, long[] contents) in _kept)
            clone._kept.Add(name, contents);
        foreach ((string name, long[] contents) in _leaving)
            clone._leaving.Add(name, contents);
        clone._coming.UnionWith(_coming);
        foreach ((string name, (long[], bool) unsure) in _unsure)
            clone._unsure.Add(name, unsure);
        return clone;
    }

    private static long[] Parse(ReadOnlySpan<byte> disk)
    {
        long[] contents = new long[disk.Length / SectorContent.Bytes];
        for (int sector = 0; sector < contents.Length; sector++)
            contents[sector] = SectorContent.Parse(disk.Slice(sector * SectorContent.Bytes, SectorContent.Bytes));
        return contents;
    }
}
