using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Metadata;

namespace OrleansDisk.Qcow2.Data;

/// <summary>Gives up all guest data of an image: everywhere its backing file shows through, or zeros without one.</summary>
internal sealed class GuestEmptying(ImageMetadata metadata)
{
    private readonly ClusterGeometry _geometry = metadata.Geometry;

    /// <summary>Empties the image, VM state aside. The caller has the gate alone.</summary>
    public async ValueTask RunAsync()
    {
        long clusterCount = _geometry.ClusterCount(metadata.Header.DiskBytes);
        for (var first = new GuestCluster(0); first.Index < clusterCount;)
        {
            bool isMapped = metadata.L2Tables.IsAllocated(first);
            int inTable = isMapped ? _geometry.L2SliceEntryCount : _geometry.L2EntryCount;
            int count = (int)Math.Min(inTable, clusterCount - first.Index);
            if (isMapped)
                await EmptySliceAsync(first, count);
            first += count;
        }
    }

    private async ValueTask EmptySliceAsync(GuestCluster first, int count)
    {
        if (!await HasEntriesAsync(first, count))
            return; // a table that a snapshot shares need not be copied
        using TablePin pin = await metadata.L2Tables.PinForChangeAsync(first);
        for (int i = 0; i < count; i++)
        {
            L2Entry old = ClusterRun.ReadEntry(pin.Table, first + i, metadata.Header);
            if (old == L2Entry.Unallocated)
                continue;
            bool frees = old.Host != L2Entry.Unallocated.Host || old.Kind(_geometry) == ClusterKind.Compressed;
            if (frees)
                metadata.EnsureFreeable(old);
            metadata.L2Tables.Write(pin.Table, first + i, L2Entry.Unallocated);
            if (frees)
                metadata.FreeClustersOf(old, DiscardType.Request);
        }
    }

    private async ValueTask<bool> HasEntriesAsync(GuestCluster first, int count)
    {
        using TablePin pin = await metadata.L2Tables.PinAsync(first);
        for (int i = 0; i < count; i++)
        {
            if (metadata.L2Tables.Read(pin.Table, first + i) != L2Entry.Unallocated)
                return true;
        }
        return false;
    }
}
