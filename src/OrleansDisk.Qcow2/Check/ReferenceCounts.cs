using OrleansDisk.Qcow2.Format;

namespace OrleansDisk.Qcow2.Check;

/// <summary>What a host cluster is used for.</summary>
internal enum ClusterUse : byte
{
    None,
    Header,
    RefcountTable,
    RefcountBlock,
    L1Table,
    L2Table,
    Data,
    CompressedData,
    SnapshotTable,
    Bitmap,
    EncryptionHeader,
}

/// <summary>
/// The references to each host cluster that a check has found, and what they use it for. Small pages that exist only
/// where something is referenced keep a sparse image cheap whatever its length.
/// </summary>
internal sealed class ReferenceCounts(ClusterGeometry geometry, long fileBytes, CheckLog log)
{
    private const int PageBits = 6;
    private const int PageClusterCount = 1 << PageBits;
    private const int CountMask = 0xfff;
    private const int UseShift = 12;

    /// <summary>Enough to show what is wrong; each is one entry of a dictionary.</summary>
    private const int MaxOverlapCount = 100_000;

    private readonly Dictionary<long, ushort[]> _pages = [];
    private readonly Dictionary<long, ulong> _largeCounts = [];
    private readonly Dictionary<long, (ClusterUse First, ClusterUse Second)> _overlaps = [];
    private ushort[] _lastPage = [];
    private long _lastPageIndex = -1;

    /// <summary>Clusters of the file, a partial one at its end included.</summary>
    public long ClusterCount { get; } = geometry.ClusterCount(fileBytes);

    /// <summary>Clusters that serve two purposes that can't share one.</summary>
    public IReadOnlyDictionary<long, (ClusterUse First, ClusterUse Second)> Overlaps => _overlaps;

    /// <summary>Adds a reference to each cluster of a byte range.</summary>
    /// <returns>Whether any of them had this use already, or lies too far past the end of the file.</returns>
    public bool Add(long offset, long bytes, ClusterUse use, ulong times = 1)
    {
        if (bytes <= 0)
            return false;
        if (bytes > long.MaxValue - offset || offset + bytes - fileBytes >= geometry.ClusterBytes)
        {
            log.Corruption("ERROR: counting reference for region exceeding the end of the file by one cluster or more: "
                + $"offset 0x{offset:x} size 0x{bytes:x}");
            return true;
        }
        bool hadUse = false;
        long last = (offset + bytes - 1) >> geometry.ClusterBits;
        for (long cluster = offset >> geometry.ClusterBits; cluster <= last; cluster++)
            hadUse |= Add(cluster, use, times);
        return hadUse;
    }

    public ulong this[long cluster]
    {
        get
        {
            if (!_pages.TryGetValue(cluster >> PageBits, out ushort[]? page))
                return 0;
            int count = page[cluster & (PageClusterCount - 1)] & CountMask;
            return count == CountMask ? _largeCounts[cluster] : (ulong)count;
        }
    }

    /// <summary>Clusters in [<paramref name="first"/>, <paramref name="end"/>) that are referenced, in order.</summary>
    public IEnumerable<long> ReferencedClusters(long first, long end)
    {
        _sortedPages ??= [.. _pages.Keys.Order()];
        int at = Array.BinarySearch(_sortedPages, first >> PageBits);
        for (at = at < 0 ? ~at : at; at < _sortedPages.Length && _sortedPages[at] << PageBits < end; at++)
        {
            ushort[] page = _pages[_sortedPages[at]];
            for (int slot = 0; slot < PageClusterCount; slot++)
            {
                long cluster = (_sortedPages[at] << PageBits) + slot;
                if (page[slot] != 0 && cluster >= first && cluster < end)
                    yield return cluster;
            }
        }
    }

    private long[]? _sortedPages;

    private bool Add(long cluster, ClusterUse use, ulong times)
    {
        ref ushort cell = ref Page(cluster >> PageBits)[cluster & (PageClusterCount - 1)];
        var before = (ClusterUse)(cell >> UseShift);
        int small = cell & CountMask;
        ulong count = small == CountMask ? _largeCounts[cluster] : (ulong)small;
        if (geometry.MaxRefcount - count < times)
        {
            log.Corruption($"ERROR: overflow cluster offset=0x{cluster << geometry.ClusterBits:x}\n"
                + "Use qemu-img amend to increase the refcount entry width or qemu-img convert to create a clean copy "
                + "if the image cannot be opened for writing");
            count = geometry.MaxRefcount;
        }
        else
        {
            count += times;
        }
        if (count >= CountMask)
            _largeCounts[cluster] = count;
        ClusterUse kept = before == ClusterUse.None ? use : before;
        cell = (ushort)(((int)kept << UseShift) | (int)Math.Min(count, CountMask));
        // Tables and data may be shared between snapshots; everything else has one user, and no two kinds mix.
        if (before != ClusterUse.None && before != use && _overlaps.Count < MaxOverlapCount)
            _overlaps.TryAdd(cluster, (before, use));
        return before == use;
    }

    private ushort[] Page(long index)
    {
        if (index == _lastPageIndex)
            return _lastPage;
        if (!_pages.TryGetValue(index, out ushort[]? page))
        {
            page = new ushort[PageClusterCount];
            _pages.Add(index, page);
            _sortedPages = null;
        }
        (_lastPageIndex, _lastPage) = (index, page);
        return page;
    }
}
