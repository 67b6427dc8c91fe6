using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Qcow2.Metadata;

namespace OrleansDisk.Qcow2.Data;

/// <summary>Makes the disk of an image larger or smaller. The caller has the gate alone.</summary>
internal sealed class DiskResize(ImageMetadata metadata, GuestData data, IDiskSource? backing, GuestWriter writer, GuestZeroes zeroes)
{
    private readonly ClusterGeometry _geometry = metadata.Geometry;

    /// <summary>
    /// Makes the disk larger. The header on disk says so last: until then a crash leaves the disk as it was, with
    /// clusters behind its end at most.
    /// </summary>
    public async Task GrowAsync(long virtualBytes, Preallocation preallocation)
    {
        long oldBytes = metadata.Header.DiskBytes;
        try
        {
            await metadata.GrowAsync(virtualBytes, async () =>
            {
                if (_geometry.HasExternalData)
                    await new DataFileGrowth(metadata).GrowAsync(oldBytes, virtualBytes, preallocation);
                if (!metadata.IsDataFileRaw)
                    await ClearAsync(oldBytes, virtualBytes);
                if (preallocation != Preallocation.Off && !_geometry.HasExternalData)
                    await PreallocateAsync(oldBytes, virtualBytes, preallocation);
            });
        }
        catch (NoSpaceException) when (!metadata.Health.HasFailed)
        {
            await RemoveBehindAsync(virtualBytes);
            throw;
        }
        catch (BlockFileException e) when (e.IsNoSpace && !metadata.Health.HasFailed)
        {
            await RemoveBehindAsync(virtualBytes);
            throw;
        }
    }

    /// <summary>
    /// Makes the disk smaller, and the file too where its end becomes free. The header on disk says so first: a crash
    /// from then on leaves clusters behind the end, which nobody sees and the next growth clears.
    /// </summary>
    public async Task ShrinkAsync(long virtualBytes)
    {
        long oldBytes = metadata.Header.DiskBytes;
        await metadata.CutAsync(virtualBytes);
        await RemoveBehindAsync(oldBytes);
        if (_geometry.HasExternalData && metadata.DataFile.LengthBytes > virtualBytes)
            await metadata.DataFile.SetLengthAsync(virtualBytes);
    }

    /// <summary>Gives back what lies between the disk's end and one that it had, or was to have.</summary>
    private async Task RemoveBehindAsync(long otherEndBytes)
    {
        var first = new GuestCluster(_geometry.ClusterCount(metadata.Header.DiskBytes));
        long end = Math.Min(_geometry.ClusterCount(otherEndBytes), (long)metadata.Header.L1EntryCount << _geometry.L2Bits);
        await zeroes.RemoveAsync(first, new GuestCluster(end));
        await metadata.SettleAsync();
        await metadata.TrimFileAsync();
    }

    /// <summary>
    /// Makes zeros of what would show in a new range: what a longer backing file holds, and what the image itself has
    /// there from a time when its disk was larger.
    /// </summary>
    private async ValueTask ClearAsync(long from, long to)
    {
        // To the end of its last cluster, so that an entry can say zero: all of it is new.
        long shownEnd = Math.Min(_geometry.RoundUp(backing?.VirtualBytes ?? 0), to);
        for (long at = from; at < to;)
        {
            GuestCluster cluster = _geometry.ClusterOf(new GuestOffset(at));
            var nextTable = new GuestCluster((long)(_geometry.L1Index(cluster) + 1) << _geometry.L2Bits);
            long tableEnd = Math.Min(_geometry.OffsetOf(nextTable).Bytes, to);
            long end = metadata.L2Tables.IsAllocated(cluster) ? tableEnd : Math.Min(tableEnd, shownEnd);
            if (end > at)
                await zeroes.WriteZeroesAsync(new GuestOffset(at), end - at, mayUnmap: true);
            at = tableEnd;
        }
    }

    /// <summary>Gives every cluster of a new range a host cluster that reads as zeros.</summary>
    private async ValueTask PreallocateAsync(long from, long to, Preallocation preallocation)
    {
        int headBytes = (int)Math.Min(to - from, _geometry.RoundUp(from) - from);
        if (headBytes > 0)
            await writer.WriteAsync(new GuestOffset(from), new byte[headBytes]); // its cluster may hold the end of the old disk
        long end = _geometry.ClusterCount(to);
        for (var cluster = new GuestCluster(_geometry.ClusterCount(from)); cluster.Index < end;)
        {
            int limit = (int)Math.Min(end - cluster.Index, _geometry.L2SliceEntryCount - _geometry.L2SliceIndex(cluster));
            HostRun run = await metadata.Allocator.ReserveFreshAsync(limit);
            try
            {
                await FillAsync(cluster, run, preallocation);
                await LinkAsync(cluster, run);
            }
            catch (Exception) when (!metadata.Health.HasFailed)
            {
                await metadata.Allocator.AbandonAsync(run.First, run.Count);
                throw;
            }
            cluster += run.Count;
        }
    }

    /// <summary>Prepares clusters that read as zeros; where zeros are not stored as zeros, they are written.</summary>
    private async ValueTask FillAsync(GuestCluster first, HostRun run, Preallocation preallocation)
    {
        HostOffset host = _geometry.OffsetOf(run.First);
        await FilePreallocation.RunAsync(metadata.File, host.Bytes, (long)run.Count << _geometry.ClusterBits, preallocation);
        if (data.FreshClustersAreZero)
            return;
        byte[] zeros = new byte[_geometry.ClusterBytes];
        for (int i = 0; i < run.Count; i++)
            await data.WriteAsync(_geometry.OffsetOf(first + i), _geometry.OffsetOf(run.First + i), zeros);
        metadata.Order.NoteDataWritten();
    }

    private async ValueTask LinkAsync(GuestCluster first, HostRun run)
    {
        using TablePin pin = await metadata.L2Tables.PinForChangeAsync(first);
        metadata.Health.ThrowIfFailed();
        // All or none: what is linked must not be abandoned because a later entry turns out to be damaged.
        for (int i = 0; i < run.Count; i++)
            metadata.EnsureFreeable(metadata.L2Tables.Read(pin.Table, first + i));
        SubclusterBitmap bitmap = _geometry.HasSubclusters ? SubclusterBitmap.AllData : default;
        for (int i = 0; i < run.Count; i++)
        {
            L2Entry old = metadata.L2Tables.Read(pin.Table, first + i);
            metadata.L2Tables.Link(pin.Table, first + i, _geometry.OffsetOf(run.First + i), bitmap);
            metadata.FreeClustersOf(old, DiscardType.Never);
        }
    }
}
