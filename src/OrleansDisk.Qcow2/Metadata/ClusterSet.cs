using System.Collections;

namespace OrleansDisk.Qcow2.Metadata;

/// <summary>
/// Host clusters. Many that are known from the start lie in a sorted array, 8 bytes each; those that come and go later are in
/// sets beside it until there are so many that sorting again pays.
/// </summary>
internal sealed class ClusterSet : IEnumerable<long>
{
    private const int MinUnsortedCount = 1024;

    private readonly HashSet<long> _added = [];
    private readonly HashSet<long> _removed = [];
    private long[] _sorted = [];

    public bool Contains(long cluster) => _added.Contains(cluster) || IsSorted(cluster);

    /// <summary>Whether the cluster is new.</summary>
    public bool Add(long cluster)
    {
        if (Contains(cluster))
            return false;
        if (!_removed.Remove(cluster))
            _added.Add(cluster);
        SortIfWorthIt();
        return true;
    }

    /// <summary>Adds many at once.</summary>
    /// <returns>Whether all of them were new, and no two the same.</returns>
    public bool AddAll(List<long> clusters)
    {
        if (clusters.Count < MinUnsortedCount)
            return clusters.Count(Add) == clusters.Count;
        int before = Count;
        Sort(clusters);
        return Count - before == clusters.Count;
    }

    /// <summary>Whether the cluster was there.</summary>
    public bool Remove(long cluster)
    {
        if (_added.Remove(cluster))
            return true;
        if (!IsSorted(cluster))
            return false;
        _removed.Add(cluster);
        SortIfWorthIt();
        return true;
    }

    public int Count => _sorted.Length - _removed.Count + _added.Count;

    public IEnumerator<long> GetEnumerator()
    {
        foreach (long cluster in _sorted)
        {
            if (!_removed.Contains(cluster))
                yield return cluster;
        }
        foreach (long cluster in _added)
            yield return cluster;
    }

    IEnumerator IEnumerable.GetEnumerator() => GetEnumerator();

    private bool IsSorted(long cluster) => Array.BinarySearch(_sorted, cluster) >= 0 && !_removed.Contains(cluster);

    private void SortIfWorthIt()
    {
        if (_added.Count + _removed.Count > MinUnsortedCount + (_sorted.Length / 4))
            Sort([]);
    }

    private void Sort(List<long> more)
    {
        long[] clusters = new long[Count + more.Count];
        int count = 0;
        foreach (long cluster in this)
            clusters[count++] = cluster;
        more.CopyTo(clusters, count);
        Array.Sort(clusters);
        _added.Clear();
        _removed.Clear();
        _sorted = WithoutRepeats(clusters);
    }

    private static long[] WithoutRepeats(long[] sorted)
    {
        int kept = 0;
        for (int i = 0; i < sorted.Length; i++)
        {
            if (i == 0 || sorted[i] != sorted[kept - 1])
                sorted[kept++] = sorted[i];
        }
        Array.Resize(ref sorted, kept);
        return sorted;
    }
}
