using OrleansDisk.Qcow2.Format;

namespace OrleansDisk.Qcow2.Metadata;

/// <summary>Metadata that is in the file already, all but the header's fields that lead to it.</summary>
/// <param name="Header">The header as it is to be, but for the place of the refcount table.</param>
/// <param name="L1Entries">The L1 table as it is to be, at the header's place for it.</param>
/// <param name="Refcounts">The refcounts as they are to be.</param>
/// <param name="Snapshots">The snapshots that there will be.</param>
/// <param name="SnapshotTableBytes">Length of their table, at the header's place for it.</param>
internal sealed record MetadataRevision(
    Header Header, ulong[] L1Entries, RefcountRevision Refcounts, IReadOnlyList<SnapshotEntry> Snapshots, long SnapshotTableBytes);

/// <content>Everything becomes another at once: L1 table, refcounts, snapshots and the size of the disk.</content>
internal sealed partial class ImageMetadata
{
    /// <summary>The snapshots of an image that is open for writing, in the order of their table; else none.</summary>
    public IReadOnlyList<SnapshotEntry> Snapshots { get; private set; } = [];

    /// <summary>The entries of the active L1 table.</summary>
    public ReadOnlySpan<ulong> L1Entries => _l1.Entries;

    /// <summary>Begins to change refcounts of an image that is settled and that the caller has alone.</summary>
    public RefcountRevision BeginRevision() => new(File, Geometry, _refcountTable, _refcountBlocks, Allocator, Map);

    /// <summary>
    /// Makes a revision what the image is, on disk by writing one sector. The image is settled, and the caller has it alone.
    /// </summary>
    /// <exception cref="Qcow2FailedException">A write or a barrier failed; the image has stopped.</exception>
    public Task SwitchAsync(MetadataRevision next) => Order.BetweenWriteBacksAsync(async () =>
    {
        HostOffset refcountTable = next.Refcounts.TableOffset;
        int refcountEntries = next.Refcounts.TableEntries?.Length ?? _refcountTable.Count;
        Header header = next.Header with
        {
            RefcountTable = refcountTable,
            RefcountTableClusters = refcountEntries / (Geometry.ClusterBytes / sizeof(ulong)),
        };
        await Order.WriteHeaderAsync([new HeaderWrite(HeaderField.Size, header.StorePlaces())]);
        TakeOverRefcounts(next.Refcounts);
        TakeOverL1(header.L1Table, next.L1Entries);
        TakeOverSnapshots(header, next);
        Header = header;
        bool discard = Discards.Passes(DiscardType.Snapshot);
        foreach ((HostCluster first, long count) in next.Refcounts.LostRuns())
            Freed.Add(first, count, discard);
    });

    private void TakeOverRefcounts(RefcountRevision refcounts)
    {
        if (refcounts.TableEntries is not { } entries)
            return;
        _refcountTable.Replace(refcounts.TableOffset, entries);
        Map.SetRange(MetadataMap.RefcountTable, refcounts.TableOffset, entries.Length * (long)sizeof(ulong));
        foreach ((HostOffset? old, HostOffset place) in refcounts.MovedBlocks())
        {
            if (old is { } stored)
            {
                _refcountBlocks.Forget(stored);
                Map.RemoveRefcountBlock(stored);
            }
            Map.AddRefcountBlock(place);
        }
    }

    private void TakeOverL1(HostOffset offset, ulong[] entries)
    {
        Published.Grow(Math.Max(entries.Length, _l1.Count));
        for (int index = 0; index < entries.Length; index++)
        {
            HostOffset table = new L1Entry(entries[index]).L2Table;
            if (index < _l1.Count && table == new L1Entry(_l1[index]).L2Table)
                continue;
            Published.WithdrawTable(index);
            if (table.Bytes != 0)
                Map.AddL2Table(table);
        }
        _l1.Replace(offset, entries);
        Map.SetRange(MetadataMap.ActiveL1, offset, entries.Length * (long)sizeof(ulong));
    }

    private void TakeOverSnapshots(Header header, MetadataRevision next)
    {
        foreach (SnapshotEntry gone in Snapshots.Except(next.Snapshots))
            Map.RemoveInactiveL1(gone.L1Table, gone.L1EntryCount * (long)sizeof(ulong));
        foreach (SnapshotEntry added in next.Snapshots.Except(Snapshots))
            Map.AddInactiveL1(added.L1Table, added.L1EntryCount * (long)sizeof(ulong));
        Snapshots = next.Snapshots;
        Map.SetRange(MetadataMap.SnapshotTable, header.SnapshotTable, next.SnapshotTableBytes);
    }
}
