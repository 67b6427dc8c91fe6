using OrleansDisk.Simulation.Host;

namespace OrleansDisk.Simulation.Crash;

/// <summary>
/// Which crash states of a barrier are looked at: all subsets of at most <see cref="MaxExhaustive"/> writes, else a
/// sample with weight on its edges, and in both cases some with one torn write.
/// </summary>
internal sealed class StateSelection(int maxStates, Random random)
{
    public const int MaxExhaustive = 12;
    public const int DefaultMaxStates = 4096;

    /// <summary>Torn states, as a share of the others.</summary>
    private const int TornShare = 4;

    /// <summary>The states; each is good until the next is asked for.</summary>
    public IEnumerable<CrashState> Select(UnflushedWrites writes)
    {
        int count = 0;
        foreach (CrashState state in SelectWhole(writes))
        {
            count++;
            yield return state;
        }
        int[] tearable = [.. Enumerable.Range(0, writes.Count).Where(write => writes.Writes[write].SectorCount > 1)];
        if (tearable.Length == 0)
            yield break;
        var torn = new CrashState(writes.Count);
        for (int i = 0; i < Math.Max(2, count / TornShare); i++)
        {
            FillAtRandom(torn, writes.Count);
            torn.TornWrite = tearable[random.Next(tearable.Length)];
            torn[torn.TornWrite] = true;
            torn.Tear = DrawTear(writes.Writes[torn.TornWrite]);
            yield return torn;
        }
    }

    /// <summary>One state of all that are possible.</summary>
    public CrashState Draw(UnflushedWrites writes)
    {
        var state = new CrashState(writes.Count);
        FillAtRandom(state, writes.Count);
        if (writes.Count > 0 && random.Next(4) == 0)
        {
            int torn = random.Next(writes.Count);
            if (writes.Writes[torn].SectorCount > 1)
                (state.TornWrite, state.Tear) = (torn, DrawTear(writes.Writes[torn]));
        }
        return state;
    }

    private IEnumerable<CrashState> SelectWhole(UnflushedWrites writes)
    {
        var state = new CrashState(writes.Count);
        if (writes.Count <= MaxExhaustive && 1 << writes.Count <= maxStates)
        {
            for (ulong reached = 0; reached < 1UL << writes.Count; reached++)
            {
                state.SetAll(reached);
                yield return state;
            }
            yield break;
        }
        for (int i = 0; i < maxStates; i++)
        {
            FillEdge(state, writes, i);
            yield return state;
        }
    }

    private void FillEdge(CrashState state, UnflushedWrites writes, int i)
    {
        int count = writes.Count;
        for (int write = 0; write < count; write++)
        {
            bool isMetadata = FileEvents.IsMetadata(writes.Writes[write].Target);
            state[write] = i switch
            {
                0 => false,
                1 => true,
                2 => isMetadata,
                3 => !isMetadata,
                _ => i % 2 == 0,
            };
        }
        if (i < 4)
            return;
        // Then by turns all but one, only one; then whatever comes.
        int edge = (i - 4) / 2;
        if (edge < Math.Min(count, maxStates / 4))
            state[edge] = !state[edge];
        else
            FillAtRandom(state, count);
    }

    private void FillAtRandom(CrashState state, int count)
    {
        int density = 1 + random.Next(7);
        for (int write = 0; write < count; write++)
            state[write] = random.Next(8) < density;
    }

    /// <summary>Devices write units of 512 bytes or of 4 KiB.</summary>
    private Tear DrawTear(FileWrite write)
    {
        int unit = random.Next(2) == 0 ? 1 : 8;
        int from = random.Next(write.SectorCount);
        int to = from + 1 + random.Next(write.SectorCount - from);
        (from, to) = random.Next(3) switch
        {
            0 => (0, to),
            1 => (from, write.SectorCount),
            _ => (from, to),
        };
        from = Math.Max(0, ((write.FirstSector + from) / unit * unit) - write.FirstSector);
        to = Math.Min(write.SectorCount, ((write.FirstSector + to + unit - 1) / unit * unit) - write.FirstSector);
        return new Tear(from, to);
    }
}
