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
    public const int PageBits = 6;
    public const int PageClusterCount = 1 << PageBits;
    private const int CountMask = 0xfff;
    private const int UseShift = 12;

    /// <summary>Enough to show what is wrong; each is one entry of a dictionary.</summary>
    private const int MaxOverlapCount = 100_000;

    private readonly Dictionary<long, ushort[]> _pages = [];
    private readonly Dictionary<long, ulong> _largeCounts = [];
    private readonly Dictionary<long, (ClusterUse First, ClusterUse Second)> _overlaps = [];
    private ushort[] _lastPage = [];
    private long _lastPageIndex = -1;
    private long _fileBytes = fileBytes;

    /// <summary>Clusters of the file, a partial one at its end included.</summary>
    public long ClusterCount => geometry.ClusterCount(_fileBytes);

    /// <summary>
    /// Whether nothing with a copied flag (L2 tables, standard clusters) was counted twice, or lies past the end: every
    /// copied flag is then right that is set, once the refcounts are known to be.
    /// </summary>
    public bool HasSingleOwnersOnly { get; private set; } = true;

    /// <summary>
    /// Whether everything could be followed. Where a table was not, clusters that it references look as if nobody did:
    /// no repair may take their refcounts away.
    /// </summary>
    public bool IsComplete { get; private set; } = true;

    public void MarkIncomplete() => IsComplete = false;

    /// <summary>The file has become longer.</summary>
    public void Extend(long bytes) => _fileBytes = Math.Max(_fileBytes, bytes);

    /// <summary>Numbers of the pages in which something is referenced, in any order.</summary>
    public IEnumerable<long> PageIndexes => _pages.Keys;

    /// <summary>The cells of a page, for <see cref="CountOf"/>, or none when nothing in it is referenced.</summary>
    public ReadOnlySpan<ushort> PageAt(long index) => _pages.TryGetValue(index, out ushort[]? page) ? page : default;

    /// <summary>The count in a page's cell.</summary>
    public ulong CountOf(ushort cell, long cluster) =>
        (cell & CountMask) == CountMask ? _largeCounts[cluster] : (ulong)(cell & CountMask);

    /// <summary>Whether a cluster serves one purpose, and this is it.</summary>
    public bool IsOnly(ClusterUse use, long cluster) => _overlaps.Count < MaxOverlapCount && !_overlaps.ContainsKey(cluster)
        && _pages.TryGetValue(cluster >> PageBits, out ushort[]? page)
        && (ClusterUse)(page[cluster & (PageClusterCount - 1)] >> UseShift) == use;

    /// <summary>Adds a reference to a standard cluster, aligned and inside the file.</summary>
    public void AddData(long cluster)
    {
        ref ushort cell = ref Page(cluster >> PageBits)[cluster & (PageClusterCount - 1)];
        if (cell == 0)
            cell = ((int)ClusterUse.Data << UseShift) | 1;
        else
            Add(cluster, ClusterUse.Data, 1);
    }

    /// <summary>Keeps a refcount where not everything that could hold references was followed.</summary>
    public void RaiseTo(long cluster, ulong refcount)
    {
        ulong count = this[cluster];
        if (refcount > count)
            Add(cluster, ClusterUse.None, refcount - count);
    }

    /// <summary>Clusters that serve two purposes that can't share one.</summary>
    public IReadOnlyDictionary<long, (ClusterUse First, ClusterUse Second)> Overlaps => _overlaps;

    /// <summary>Adds a reference to each cluster of a byte range.</summary>
    /// <returns>Whether any of them had this use already, or lies too far past the end of the file.</returns>
    public bool Add(long offset, long bytes, ClusterUse use, ulong times = 1)
    {
        if (bytes <= 0)
            return false;
        if (bytes > long.MaxValue - offset || offset + bytes - _fileBytes >= geometry.ClusterBytes)
        {
            HasSingleOwnersOnly = false;
            log.Corruption($"ERROR: counting reference for region exceeding the end of the file by one cluster or more: "
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
            return CountOf(page[cluster & (PageClusterCount - 1)], cluster);
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
        if (count > 0 && (use is ClusterUse.Data or ClusterUse.L2Table || before is ClusterUse.Data or ClusterUse.L2Table))
            HasSingleOwnersOnly = false;
        if (geometry.MaxRefcount - count < times)
        {
            log.Corruption($"ERROR: overflow cluster offset=0x{cluster << geometry.ClusterBits:x}\n"
                + $"Use qemu-img amend to increase the refcount entry width or qemu-img convert to create a clean copy "
                + $"if the image cannot be opened for writing");
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
        if (before != ClusterUse.None && use != ClusterUse.None && before != use && _overlaps.Count < MaxOverlapCount)
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
