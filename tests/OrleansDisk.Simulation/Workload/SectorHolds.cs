using OrleansDisk.Simulation.Model;

namespace OrleansDisk.Simulation.Workload;

/// <summary>
/// Which sectors operations under way touch. Those that give a sector a whole new content share it; who changes a part
/// of it has it alone, since what comes out is only then one of few.
/// </summary>
internal sealed class SectorHolds
{
    private readonly Dictionary<int, int> _shared = [];
    private readonly HashSet<int> _alone = [];
    private TaskCompletionSource _released = new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <summary>Waits for a range of bytes: sectors that it covers in part are held alone.</summary>
    public async Task<Hold> TakeAsync(long offset, long bytes)
    {
        (int first, int count) = DiskModel.SectorsOf(offset, bytes);
        var whole = new List<int>();
        var parts = new List<int>();
        for (int sector = first; sector < first + count; sector++)
        {
            bool isWhole = (long)sector * SectorContent.Bytes >= offset && (sector + 1L) * SectorContent.Bytes <= offset + bytes;
            (isWhole ? whole : parts).Add(sector);
        }
        while (whole.Exists(_alone.Contains) || parts.Exists(sector => _alone.Contains(sector) || _shared.ContainsKey(sector)))
            await _released.Task;
        foreach (int sector in whole)
            _shared[sector] = _shared.GetValueOrDefault(sector) + 1;
        _alone.UnionWith(parts);
        return new Hold(this, whole, parts);
    }

    internal sealed class Hold(SectorHolds holds, List<int> whole, List<int> parts) : IDisposable
    {
        public IReadOnlyList<int> Parts => parts;

        /// <summary>Holds alone what is shared with nobody at this moment.</summary>
        public void TakeAloneWhatIsFree()
        {
            foreach (int sector in whole.Where(sector => holds._shared[sector] == 1).ToArray())
            {
                whole.Remove(sector);
                holds._shared.Remove(sector);
                holds._alone.Add(sector);
                parts.Add(sector);
            }
        }

        public void Dispose()
        {
            foreach (int sector in whole)
            {
                if (--holds._shared[sector] == 0)
                    holds._shared.Remove(sector);
            }
            holds._alone.ExceptWith(parts);
            TaskCompletionSource released = holds._released;
            holds._released = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            released.SetResult();
        }
    }
}
