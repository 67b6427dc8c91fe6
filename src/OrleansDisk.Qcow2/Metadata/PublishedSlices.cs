using OrleansDisk.Qcow2.Format;

namespace OrleansDisk.Qcow2.Metadata;

/// <summary>
/// The cached L2 slices by their number, for those who look entries up without a turn of the image. Turns keep it true
/// to the cache; any thread may look. A slice that was found stays usable after it left the cache: it then says what was
/// true when it left, which is as if it had been looked at earlier.
/// </summary>
internal sealed class PublishedSlices(int l1EntryCount, ClusterGeometry geometry)
{
    private const int PageBits = 9;
    private const int PageEntryCount = 1 << PageBits;

    /// <summary>Stands for the slices of every table that does not exist: all its entries are unallocated.</summary>
    private CachedTable? _nothing;

    /// <summary>Pages are made when something is published in them: a sparse disk of many TiB costs little.</summary>
    private CachedTable?[]?[] _pages = new CachedTable?[]?[PageCount(l1EntryCount, geometry)];

    /// <summary>The slice, if it is published. May be called by any thread.</summary>
    public CachedTable? Find(long slice)
    {
        CachedTable?[]?[] pages = Volatile.Read(ref _pages);
        long page = slice >> PageBits;
        return page < pages.Length && Volatile.Read(ref pages[page]) is { } tables
            ? Volatile.Read(ref tables[slice & (PageEntryCount - 1)]) : null;
    }

    /// <summary>Says that there is no table with this slice.</summary>
    public void PublishNothing(long slice) =>
        Volatile.Write(ref Place(slice), _nothing ??= new CachedTable(default, new byte[geometry.L2SliceBytes]));

    /// <summary>Puts a slice in the place of what was there.</summary>
    public void Publish(long slice, CachedTable table)
    {
        ref CachedTable? place = ref Place(slice);
        if (ReferenceEquals(place, table))
            return;
        // A damaged image may lead to one table from two places; it is published in the first alone.
        if (table.Slice is { } other && other != slice && ReferenceEquals(Find(other), table))
            return;
        table.Slice = slice;
        Volatile.Write(ref place, table);
    }

    /// <summary>Takes a slice back that leaves the cache.</summary>
    public void Withdraw(CachedTable table)
    {
        if (table.Slice is { } slice && ReferenceEquals(Find(slice), table))
            Volatile.Write(ref Place(slice), null);
        table.Slice = null;
    }

    /// <summary>Takes back all slices of a table, or that there is none: another one comes into its place.</summary>
    public void WithdrawTable(int l1Index)
    {
        long first = (long)l1Index * geometry.L2SliceCount;
        for (long slice = first; slice < first + geometry.L2SliceCount; slice++)
        {
            if (Find(slice) is not null)
                Volatile.Write(ref Place(slice), null);
        }
    }

    /// <summary>Makes room for the tables of a longer L1 table.</summary>
    public void Grow(int l1EntryCount)
    {
        CachedTable?[]?[] pages = _pages;
        Array.Resize(ref pages, PageCount(l1EntryCount, geometry));
        Volatile.Write(ref _pages, pages);
    }

    private ref CachedTable? Place(long slice)
    {
        ref CachedTable?[]? page = ref _pages[slice >> PageBits];
        if (page is null)
            Volatile.Write(ref page, new CachedTable?[PageEntryCount]);
        return ref page[slice & (PageEntryCount - 1)];
    }

    private static int PageCount(int l1EntryCount, ClusterGeometry geometry) =>
        (int)((((long)l1EntryCount * geometry.L2SliceCount) + PageEntryCount - 1) >> PageBits);
}
