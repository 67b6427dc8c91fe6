using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Bitmaps;

namespace OrleansDisk.Simulation.Model;

/// <summary>What the bitmaps of an image must say, at every moment and after every crash.</summary>
internal sealed class BitmapModel
{
    private readonly SortedDictionary<string, Tracked> _bitmaps = new(StringComparer.Ordinal);

    /// <summary>The bitmap that an operation is changing: it may be what it was, or what it is going to be, or not be.</summary>
    public string? UnderWay { get; set; }

    /// <summary>Whether a fault struck an operation: what there is, the image tells when it is opened next.</summary>
    public bool IsUnsure { get; set; }

    public IReadOnlyCollection<string> Names => _bitmaps.Keys;

    /// <summary>Clusters that operations under way may have written and nothing leads to.</summary>
    public int LeakLimit => UnderWay is null && _bitmaps.Count == 0 ? 0 : 16 * (_bitmaps.Count + 1);

    /// <summary>Whether one is inconsistent, or may be: then the disk keeps its size.</summary>
    public bool KeepsSize => IsUnsure || _bitmaps.Values.Any(bitmap => bitmap.IsInconsistent);

    public bool IsInconsistent(string name) => _bitmaps[name].IsInconsistent;

    public void Add(string name, bool isEnabled) => _bitmaps.Add(name, new Tracked { IsEnabled = isEnabled });

    public void Remove(string name) => _bitmaps.Remove(name);

    public void Clear(string name) => _bitmaps[name].Changed.Clear();

    public void Enable(string name, bool isEnabled) => _bitmaps[name].IsEnabled = isEnabled;

    public void Merge(string name, string source) => _bitmaps[name].Changed.UnionWith(_bitmaps[source].Changed);

    /// <summary>A sector changed, or may have changed.</summary>
    public void NoteChanged(int sector)
    {
        foreach (Tracked bitmap in _bitmaps.Values)
        {
            if (bitmap.IsEnabled)
                bitmap.Changed.Add(sector);
        }
    }

    /// <summary>The disk has become this small: what was behind its end is forgotten.</summary>
    public void Cut(int sectorCount)
    {
        foreach (Tracked bitmap in _bitmaps.Values)
            bitmap.Changed.RemoveWhere(sector => sector >= sectorCount);
    }

    /// <summary>Holds the bitmaps of an open image against the model.</summary>
    /// <param name="image">The image.</param>
    /// <param name="isSizeUnsure">Whether its size was changing: then all bitmaps may be in use, or no longer.</param>
    /// <exception cref="SimulationFailure">A change has no bit, or a bitmap is gone.</exception>
    public async Task JudgeAsync(Qcow2Image image, bool isSizeUnsure)
    {
        IReadOnlyList<BitmapDescription> found = await image.ListBitmapsAsync();
        foreach ((string name, Tracked bitmap) in _bitmaps)
        {
            int at = found.ToList().FindIndex(one => one.Name == name);
            bool mayDiffer = IsUnsure || UnderWay == name;
            if (at < 0)
            {
                if (!mayDiffer)
                    throw new SimulationFailure("I9", $"bitmap {name} is gone");
                continue;
            }
            if (found[at].IsInconsistent)
            {
                if (!bitmap.IsEnabled && !bitmap.IsInconsistent && !mayDiffer && !isSizeUnsure)
                    throw new SimulationFailure("I9", $"bitmap {name} is inconsistent, and nothing was to change it");
                continue;
            }
            if (bitmap.IsInconsistent && !mayDiffer && !isSizeUnsure)
                throw new SimulationFailure("I9", $"bitmap {name} counts again though it had missed changes");
            await JudgeAsync(image, name, bitmap);
        }
    }

    /// <summary>The image was opened again: what the model can't know, the image tells.</summary>
    public async Task AdoptAsync(Qcow2Image image)
    {
        IReadOnlyList<BitmapDescription> found = await image.ListBitmapsAsync();
        foreach (string gone in _bitmaps.Keys.Except(found.Select(bitmap => bitmap.Name)).ToArray())
            _bitmaps.Remove(gone);
        foreach (BitmapDescription bitmap in found)
        {
            if (!_bitmaps.TryGetValue(bitmap.Name, out Tracked? tracked))
                _bitmaps.Add(bitmap.Name, tracked = new Tracked());
            (tracked.IsEnabled, tracked.IsInconsistent) = (bitmap.IsEnabled, bitmap.IsInconsistent);
        }
        Cut((int)(image.VirtualBytes / SectorContent.Bytes));
        (UnderWay, IsUnsure) = (null, false);
    }

    public BitmapModel Clone()
    {
        var clone = new BitmapModel { UnderWay = UnderWay, IsUnsure = IsUnsure };
        foreach ((string name, Tracked bitmap) in _bitmaps)
            clone._bitmaps.Add(name, new Tracked { IsEnabled = bitmap.IsEnabled, IsInconsistent = bitmap.IsInconsistent, Changed = [.. bitmap.Changed] });
        return clone;
    }

    private static async Task JudgeAsync(Qcow2Image image, string name, Tracked bitmap)
    {
        var clean = new List<(long Start, long End)>();
        for (long at = 0; at < image.VirtualBytes;)
        {
            BitmapExtent extent = await image.GetBitmapExtentAsync(name, at, image.VirtualBytes - at);
            if (!extent.IsDirty)
                clean.Add((at, at + extent.Bytes));
            at += extent.Bytes;
        }
        foreach (int sector in bitmap.Changed)
        {
            long start = (long)sector * SectorContent.Bytes;
            if (clean.Exists(range => range.Start < start + SectorContent.Bytes && start < range.End))
                throw new SimulationFailure("I9", $"sector {sector} changed, and bitmap {name} says that it is clean");
        }
    }

    private sealed class Tracked
    {
        public bool IsEnabled { get; set; }

        public bool IsInconsistent { get; set; }

        /// <summary>Sectors that changed while it was enabled, since it was empty.</summary>
        public HashSet<int> Changed { get; init; } = [];
    }
}
