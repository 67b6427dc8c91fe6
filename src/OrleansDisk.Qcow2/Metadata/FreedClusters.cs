using OrleansDisk.Qcow2.Concurrency;
using OrleansDisk.Qcow2.Format;

namespace OrleansDisk.Qcow2.Metadata;

/// <summary>Host clusters that lost one reference each.</summary>
/// <param name="First">The first of them.</param>
/// <param name="Count">How many.</param>
/// <param name="Discard">Whether their bytes go back to the host once nothing refers to them.</param>
internal readonly record struct FreedRun(HostCluster First, long Count, bool Discard);

/// <summary>
/// Clusters on their way to being free. A reference that was removed from an L2 table waits here, first until the table
/// is on stable storage without it (W3), then until every request that may have seen it has ended (W5).
/// </summary>
internal sealed class FreedClusters(RequestGate gate)
{
    private readonly Queue<(long Epoch, List<FreedRun> Runs)> _unreferenced = new();
    private List<FreedRun> _referenced = [];

    public bool IsEmpty => _referenced.Count == 0 && _unreferenced.Count == 0;

    /// <summary>Whether no cluster comes free for now: someone reads tables as they were.</summary>
    public bool IsHeld { get; set; }

    /// <summary>Whether a write-back would set clusters free.</summary>
    public bool AwaitsWriteBack => _referenced.Count > 0;

    /// <summary>Notes a reference that was just removed from a table in memory.</summary>
    public void Add(HostCluster first, long count, bool discard)
    {
        if (_referenced.Count > 0 && _referenced[^1] is var last && last.Discard == discard
            && last.First.Index + last.Count == first.Index)
        {
            _referenced[^1] = last with { Count = last.Count + count };
            return;
        }
        _referenced.Add(new FreedRun(first, count, discard));
    }

    /// <summary>What a write-back that starts now will make unreferenced on disk, in order, neighbours together.</summary>
    public List<FreedRun> Take()
    {
        List<FreedRun> taken = _referenced;
        _referenced = [];
        if (taken.Count < 2)
            return taken;
        taken.Sort((one, other) => one.First.Index.CompareTo(other.First.Index));
        int last = 0;
        for (int i = 1; i < taken.Count; i++)
        {
            FreedRun run = taken[last];
            // Clusters that lost two references are in two runs, and stay so.
            if (run.Discard == taken[i].Discard && run.First.Index + run.Count == taken[i].First.Index)
                taken[last] = run with { Count = run.Count + taken[i].Count };
            else
                taken[++last] = taken[i];
        }
        taken.RemoveRange(last + 1, taken.Count - last - 1);
        return taken;
    }

    /// <summary>The write-back is on stable storage.</summary>
    public void Unreferenced(List<FreedRun> runs)
    {
        if (runs.Count > 0)
            _unreferenced.Enqueue((gate.EndEpoch(), runs));
    }

    /// <summary>Runs that nothing on disk and no request refers to any more, or null.</summary>
    public List<FreedRun>? TakeReleasable() =>
        !IsHeld && _unreferenced.TryPeek(out (long Epoch, List<FreedRun> Runs) oldest) && gate.HasDrained(oldest.Epoch)
            ? _unreferenced.Dequeue().Runs : null;
}
