using System.Runtime.InteropServices;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Qcow2.Metadata;

namespace OrleansDisk.Qcow2.Snapshots;

/// <summary>
/// L1 and L2 tables as they are to be when a snapshot has come, gone, or become the disk. A table whose copied flags
/// change gets a new place: where it lies now, the flags stay true to the refcounts that are on disk.
/// </summary>
internal sealed class MappingRevision(ImageMetadata metadata, CancellationToken cancellation)
{
    private readonly IBlockFile _file = metadata.File;
    private readonly ClusterGeometry _geometry = metadata.Geometry;
    private readonly byte[] _table = new byte[metadata.Geometry.ClusterBytes];

    /// <summary>Indexes of the entries of that table that are not empty.</summary>
    private readonly List<int> _used = [];

    public RefcountRevision Refcounts { get; } = metadata.BeginRevision();

    /// <summary>The L1 table of a snapshot.</summary>
    /// <exception cref="Qcow2FormatException">It lies where none can.</exception>
    public async ValueTask<ulong[]> ReadL1Async(SnapshotEntry snapshot)
    {
        long bytes = snapshot.L1EntryCount * (long)sizeof(ulong);
        SnapshotTable.ValidateL1(snapshot, _geometry);
        if (snapshot.L1Table.Bytes + bytes > _geometry.RoundUp(_file.LengthBytes))
            throw new Qcow2FormatException("Snapshot L1 table offset invalid");
        byte[] stored = new byte[bytes];
        await _file.ReadAsync(snapshot.L1Table.Bytes, stored);
        return PointerTable.Parse(stored);
    }

    /// <summary>Writes a table where nothing leads yet.</summary>
    public async ValueTask<HostOffset> WriteAsync(byte[] table)
    {
        if (table.Length == 0)
            return default;
        HostOffset place = _geometry.OffsetOf(await Refcounts.ReserveAsync(_geometry.ClusterCount(table.Length)));
        await _file.WriteAsync(place.Bytes, table);
        return place;
    }

    /// <summary>Takes away the references of a table that exists once.</summary>
    public async ValueTask FreeAsync(HostOffset table, long bytes, string role)
    {
        if (bytes > 0)
            await Refcounts.LowerAsync(_geometry.ClusterOf(table), _geometry.ClusterCount(bytes), role);
    }

    /// <summary>Adds a second owner to an L2 table and all below it; returns the entry for both of them.</summary>
    public async ValueTask<L1Entry> ShareAsync(L1Entry entry)
    {
        await ReadTableAsync(entry);
        await RaiseDataAsync();
        if (!ClearCopied())
        {
            await Refcounts.RaiseAsync(_geometry.ClusterOf(entry.L2Table), 1);
            return L1Entry.To(entry.L2Table, copied: false);
        }
        HostOffset place = await WriteAsync(_table);
        await Refcounts.SetReservedAsync(_geometry.ClusterOf(place), 2);
        await Refcounts.LowerAsync(_geometry.ClusterOf(entry.L2Table), 1, MetadataMap.L2Table);
        return L1Entry.To(place, copied: false);
    }

    /// <summary>Gives the active disk an L2 table of a snapshot, and all below it; returns the disk's entry.</summary>
    public async ValueTask<L1Entry> AdoptAsync(L1Entry entry)
    {
        await ReadTableAsync(entry);
        await RaiseDataAsync();
        if (ClearCopied()) // the snapshot's own table may have them set; the disk's must not
            return L1Entry.To(await WriteAsync(_table), copied: true);
        await Refcounts.RaiseAsync(_geometry.ClusterOf(entry.L2Table), 1);
        return L1Entry.To(entry.L2Table, copied: false);
    }

    /// <summary>Takes an owner away from an L2 table and all below it.</summary>
    public async ValueTask LeaveAsync(L1Entry entry)
    {
        await ReadTableAsync(entry);
        foreach ((HostCluster first, long count) in DataRuns())
            await Refcounts.LowerAsync(first, count, role: null);
        HostCluster table = _geometry.ClusterOf(entry.L2Table);
        if (metadata.Map.Find(table) is { } name and not MetadataMap.L2Table)
            throw new MetadataDamagedException($"Preventing invalid free of metadata ({name}) at offset {entry.L2Table}");
        await Refcounts.LowerAsync(table, 1, MetadataMap.L2Table);
    }

    /// <summary>Sets the copied flags of what the disk alone still owns; returns its entry.</summary>
    public async ValueTask<L1Entry> ReclaimAsync(L1Entry entry)
    {
        HostCluster table = _geometry.ClusterOf(entry.L2Table);
        // Looked at even if others share the table: a reference that a crash leaked looks the same, and says nothing of what is below.
        bool isOwn = await Refcounts.GetAsync(table) == 1;
        await ReadTableAsync(entry);
        bool hasChanged = false;
        foreach (int index in _used)
        {
            var l2Entry = L2Entry.Read(_table, index, _geometry);
            if (l2Entry.IsCopied || !l2Entry.HasHost(_geometry) || await Refcounts.GetAsync(_geometry.ClusterOf(l2Entry.Host)) != 1)
                continue;
            l2Entry.WithCopied(true).WriteTo(_table, index, _geometry);
            hasChanged = true;
        }
        if (!hasChanged)
            return L1Entry.To(entry.L2Table, isOwn);
        HostOffset place = await WriteAsync(_table);
        await Refcounts.LowerAsync(table, 1, MetadataMap.L2Table);
        return L1Entry.To(place, copied: true);
    }

    /// <exception cref="MetadataDamagedException">An entry breaks the specification.</exception>
    private async ValueTask ReadTableAsync(L1Entry entry)
    {
        cancellation.ThrowIfCancellationRequested();
        if (!_geometry.IsAligned(entry.L2Table.Bytes))
            throw new MetadataDamagedException($"L2 table offset {entry.L2Table} unaligned");
        await _file.ReadAsync(entry.L2Table.Bytes, _table);
        FindUsed();
        foreach (int index in _used)
        {
            var l2Entry = L2Entry.Read(_table, index, _geometry);
            if (l2Entry.HasHost(_geometry) && !_geometry.IsAligned(l2Entry.Host.Bytes))
            {
                throw new MetadataDamagedException(
                    $"Cluster allocation offset {l2Entry.Host} unaligned (L2 offset: {entry.L2Table}, L2 index: 0x{index:x})");
            }
        }
    }

    /// <summary>Most tables of a large disk are nearly empty.</summary>
    private void FindUsed()
    {
        _used.Clear();
        int wordsPerEntry = _geometry.L2EntryBytes / sizeof(ulong);
        ReadOnlySpan<ulong> words = MemoryMarshal.Cast<byte, ulong>(_table);
        for (int at = 0; at < words.Length;)
        {
            int next = words[at..].IndexOfAnyExcept(0UL);
            if (next < 0)
                return;
            int index = (at + next) / wordsPerEntry;
            _used.Add(index);
            at = (index + 1) * wordsPerEntry;
        }
    }

    private async ValueTask RaiseDataAsync()
    {
        foreach ((HostCluster first, long count) in DataRuns())
            await Refcounts.RaiseAsync(first, count);
    }

    private bool ClearCopied()
    {
        bool hasChanged = false;
        foreach (int index in _used)
        {
            var entry = L2Entry.Read(_table, index, _geometry);
            if (!entry.IsCopied || entry.Kind(_geometry) == ClusterKind.Compressed)
                continue;
            entry.WithCopied(false).WriteTo(_table, index, _geometry);
            hasChanged = true;
        }
        return hasChanged;
    }

    /// <summary>The references in the table that is in memory, neighbours together.</summary>
    private IEnumerable<(HostCluster First, long Count)> DataRuns()
    {
        (HostCluster first, long count) = (default, 0L);
        foreach (int index in _used)
        {
            (HostCluster next, long nextCount) = metadata.ClustersOf(L2Entry.Read(_table, index, _geometry));
            if (nextCount == 0)
                continue;
            if (count > 0 && next == first + count)
            {
                count += nextCount;
                continue;
            }
            if (count > 0)
                yield return (first, count);
            (first, count) = (next, nextCount);
        }
        if (count > 0)
            yield return (first, count);
    }
}
