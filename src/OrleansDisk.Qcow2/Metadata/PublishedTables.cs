namespace OrleansDisk.Qcow2.Metadata;

/// <summary>
/// The cached L2 tables by their L1 index, for those who look entries up without a turn of the image. Turns keep it true
/// to the cache; any thread may look. A table that was found stays usable after it left the cache: it then says what was
/// true when it left, which is as if it had been looked at earlier.
/// </summary>
internal sealed class PublishedTables(int count, int tableBytes)
{
    private const int PageBits = 9;
    private const int PageEntryCount = 1 << PageBits;

    /// <summary>Stands for every table that does not exist: all its entries are unallocated.</summary>
    private CachedTable? _nothing;

    /// <summary>Pages are made when something is published in them: a sparse disk of many TiB costs little.</summary>
    private CachedTable?[]?[] _pages = new CachedTable?[]?[PageCount(count)];

    /// <summary>The table, if it is published. May be called by any thread.</summary>
    public CachedTable? Find(long l1Index)
    {
        CachedTable?[]?[] pages = Volatile.Read(ref _pages);
        long page = l1Index >> PageBits;
        return page < pages.Length && Volatile.Read(ref pages[page]) is { } tables
            ? Volatile.Read(ref tables[l1Index & (PageEntryCount - 1)]) : null;
    }

    /// <summary>Says that there is no table; a table that is made is published in its place.</summary>
    public void PublishNothing(int l1Index) =>
        Volatile.Write(ref Place(l1Index), _nothing ??= new CachedTable(default, new byte[tableBytes]));

    /// <summary>Puts a table in the place of what was there.</summary>
    public void Publish(int l1Index, CachedTable table)
    {
        ref CachedTable? place = ref Place(l1Index);
        if (ReferenceEquals(place, table))
            return;
        // A damaged image may lead to one table from two places; it is published in the first alone.
        if (table.L1Index is { } other && other != l1Index && ReferenceEquals(Find(other), table))
            return;
        table.L1Index = l1Index;
        Volatile.Write(ref place, table);
    }

    /// <summary>Takes a table back that leaves the cache.</summary>
    public void Withdraw(CachedTable table)
    {
        if (table.L1Index is { } l1Index && ReferenceEquals(Find(l1Index), table))
            Volatile.Write(ref Place(l1Index), null);
        table.L1Index = null;
    }

    /// <summary>Makes room for more entries.</summary>
    public void Grow(int count)
    {
        CachedTable?[]?[] pages = _pages;
        Array.Resize(ref pages, PageCount(count));
        Volatile.Write(ref _pages, pages);
    }

    private ref CachedTable? Place(int l1Index)
    {
        ref CachedTable?[]? page = ref _pages[l1Index >> PageBits];
        if (page is null)
            Volatile.Write(ref page, new CachedTable?[PageEntryCount]);
        return ref page[l1Index & (PageEntryCount - 1)];
    }

    private static int PageCount(int count) => (count + PageEntryCount - 1) >> PageBits;
}
