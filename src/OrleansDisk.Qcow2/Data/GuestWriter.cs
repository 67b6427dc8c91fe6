using System.Buffers;
using OrleansDisk.Qcow2.Concurrency;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Qcow2.Metadata;

namespace OrleansDisk.Qcow2.Data;

/// <summary>
/// Writes guest data: in place where the image owns the clusters alone, else into newly reserved ones, filled up with
/// what the guest saw there, and linked when they are written.
/// </summary>
internal sealed class GuestWriter(ImageMetadata metadata, GuestData guestData, GuestReader reader)
{
    private static readonly ReadOnlyMemory<byte> ZeroBytes = new byte[256 << 10];

    private readonly ClusterGeometry _geometry = metadata.Geometry;
    private readonly WriteTargets _targets = new(metadata);

    /// <summary>Writes a range inside the disk. The caller is inside the gate.</summary>
    public ValueTask WriteAsync(GuestOffset offset, ReadOnlyMemory<byte> data)
    {
        if (data.Length == 0)
            return ValueTask.CompletedTask;
        GuestCluster cluster = _geometry.ClusterOf(offset);
        // The usual overwrite: one run that is ours alone, whose table is in the cache.
        if (metadata.L2Tables.TryGet(cluster, out CachedTable table))
        {
            var run = ClusterRun.Find(table, offset, data.Length, metadata.Header);
            if (run.IsWritableInPlace && run.Bytes == data.Length)
                return WriteInPlaceAsync(table, run, data);
        }
        return WriteRunsAsync(offset, data);
    }

    /// <summary>Writes zeros as data into a range inside the disk. The caller is inside the gate.</summary>
    public async ValueTask WriteZeroesAsync(GuestOffset offset, long bytes)
    {
        for (long done = 0; done < bytes;)
        {
            // Parts meet at multiples of their length: a crash between two of them tears no sector.
            int part = (int)Math.Min(bytes - done, ZeroBytes.Length - ((offset.Bytes + done) % ZeroBytes.Length));
            await WriteAsync(offset + done, ZeroBytes[..part]);
            done += part;
        }
    }

    private async ValueTask WriteRunsAsync(GuestOffset offset, ReadOnlyMemory<byte> data)
    {
        while (data.Length > 0)
        {
            int written = await WriteSomeAsync(offset, data);
            offset += written;
            data = data[written..];
        }
    }

    /// <summary>Writes the start of the range, as far as one step reaches; returns the bytes.</summary>
    private async ValueTask<int> WriteSomeAsync(GuestOffset offset, ReadOnlyMemory<byte> data)
    {
        GuestCluster cluster = _geometry.ClusterOf(offset);
        while (true)
        {
            ClusterReservations.Reservation reservation;
            L2Entry firstEntry;
            L2Entry lastEntry;
            using (TablePin pin = await metadata.L2Tables.PinForChangeAsync(cluster))
            {
                var run = ClusterRun.Find(pin.Table, offset, data.Length, metadata.Header);
                if (run.IsWritableInPlace)
                {
                    await WriteInPlaceAsync(pin.Table, run, data[..(int)run.Bytes]);
                    return (int)run.Bytes;
                }
                if (metadata.Reservations.Find(cluster) is { } other)
                {
                    await other.Ended;
                    continue;
                }
                int count = CountToAllocate(pin.Table, run.Entry, cluster, ClusterCount(offset, data.Length));
                reservation = metadata.Reservations.Reserve(cluster, count);
                firstEntry = run.Entry;
                lastEntry = metadata.L2Tables.Read(pin.Table, cluster + (count - 1));
            }
            using (reservation)
            {
                return IsRefillable(firstEntry)
                    ? await RefillAsync(reservation, firstEntry, offset, data)
                    : await AllocateAsync(reservation, firstEntry, lastEntry, offset, data);
            }
        }
    }

    /// <summary>
    /// A cluster that can't be written in place as it is keeps its host cluster if that is our own: it reads as zeros, or
    /// some of its subclusters have no data. Its old bytes must not show through.
    /// </summary>
    private bool IsRefillable(L2Entry entry) => entry.IsCopied && entry.HasHost(_geometry);

    /// <summary>How many clusters from one on need new host clusters and are not reserved.</summary>
    private int CountToAllocate(CachedTable table, L2Entry firstEntry, GuestCluster first, int wanted)
    {
        if (IsRefillable(firstEntry))
            return 1;
        int limit = Math.Min(wanted, _geometry.L2SliceEntryCount - _geometry.L2SliceIndex(first));
        limit = metadata.Reservations.CountFree(first, limit);
        int count = 1;
        while (count < limit)
        {
            L2Entry entry = ClusterRun.ReadEntry(table, first + count, metadata.Header);
            if (IsRefillable(entry))
                break;
            count++;
        }
        return count;
    }

    private ValueTask WriteInPlaceAsync(CachedTable table, ClusterRun run, ReadOnlyMemory<byte> data)
    {
        HostOffset host = run.Entry.Host + _geometry.OffsetInCluster(run.Start);
        _targets.Check(table, run);
        ValueTask write = guestData.WriteAsync(run.Start, host, data);
        if (!write.IsCompletedSuccessfully)
            return FinishAsync(write);
        metadata.Order.NoteDataWritten();
        return ValueTask.CompletedTask;
    }

    private async ValueTask FinishAsync(ValueTask write)
    {
        try
        {
            await write;
        }
        finally
        {
            metadata.Order.NoteDataWritten();
        }
    }

    /// <summary>Writes into the host cluster that is there, with what the guest saw around the data.</summary>
    private async ValueTask<int> RefillAsync(
        ClusterReservations.Reservation reservation, L2Entry entry, GuestOffset offset, ReadOnlyMemory<byte> data)
    {
        int bytes = (int)Math.Min(BytesOf(1, offset), data.Length);
        var run = new HostRun(_geometry.ClusterOf(entry.Host), 1, IsFresh: false);
        _targets.Check(run.First);
        var filled = FilledRange.InKeptCluster(entry, offset, offset + bytes, _geometry);
        await WriteClustersAsync(run, filled, entry, entry, offset, data[..bytes]);
        await LinkAsync(reservation.First, run, filled);
        return bytes;
    }

    private async ValueTask<int> AllocateAsync(ClusterReservations.Reservation reservation, L2Entry firstEntry,
        L2Entry lastEntry, GuestOffset offset, ReadOnlyMemory<byte> data)
    {
        HostRun run = await ReserveHostAsync(reservation);
        try
        {
            if (run.Count < reservation.Count)
            {
                reservation.Shrink(run.Count);
                // The range now ends on a cluster's end, so the last cluster has no tail to fill.
                lastEntry = L2Entry.Unallocated;
            }
            int bytes = (int)Math.Min(BytesOf(run.Count, offset), data.Length);
            var filled = FilledRange.InNewClusters(firstEntry, lastEntry, offset, offset + bytes, _geometry);
            await WriteClustersAsync(run, filled, firstEntry, lastEntry, offset, data[..bytes]);
            await LinkAsync(reservation.First, run, filled);
            return bytes;
        }
        catch (Exception) when (!metadata.Health.HasFailed && !_geometry.HasExternalData)
        {
            await metadata.Allocator.AbandonAsync(run.First, run.Count);
            throw;
        }
    }

    /// <summary>Host clusters for guest clusters that are reserved: free ones, or those that are theirs in a data file.</summary>
    private ValueTask<HostRun> ReserveHostAsync(ClusterReservations.Reservation reservation)
    {
        if (!_geometry.HasExternalData)
            return metadata.Allocator.ReserveAsync(reservation.Count);
        long start = _geometry.OffsetOf(reservation.First).Bytes;
        long bytes = (long)reservation.Count << _geometry.ClusterBits;
        FileExtent extent = metadata.DataFile.GetExtent(start, start + bytes);
        bool isHole = !extent.IsData && extent.Bytes == bytes;
        return new ValueTask<HostRun>(new HostRun(new HostCluster(reservation.First.Index), reservation.Count, isHole));
    }

    /// <summary>
    /// Writes data into host clusters that no entry leads to yet, with what the guest saw before and behind it, in one
    /// write. Fresh clusters read as zeros where nothing is written.
    /// </summary>
    private async ValueTask WriteClustersAsync(HostRun run, FilledRange filled, L2Entry firstEntry, L2Entry lastEntry,
        GuestOffset offset, ReadOnlyMemory<byte> data)
    {
        GuestOffset end = offset + data.Length;
        int headBytes = (int)(offset.Bytes - filled.Start.Bytes);
        int tailBytes = (int)(filled.End.Bytes - end.Bytes);
        bool isZero = run.IsFresh && guestData.FreshClustersAreZero;
        if (isZero && !reader.MayHoldData(firstEntry, filled.Start, headBytes))
            headBytes = 0;
        if (isZero && !reader.MayHoldData(lastEntry, end, tailBytes))
            tailBytes = 0;
        HostOffset host = _geometry.OffsetOf(run.First) + (_geometry.OffsetInCluster(offset) - headBytes);
        try
        {
            if (headBytes + tailBytes == 0)
            {
                await guestData.WriteAsync(offset, host, data);
                return;
            }
            byte[] around = ArrayPool<byte>.Shared.Rent(headBytes + tailBytes);
            try
            {
                Memory<byte> head = around.AsMemory(0, headBytes);
                Memory<byte> tail = around.AsMemory(headBytes, tailBytes);
                var start = new GuestOffset(offset.Bytes - headBytes);
                await reader.ReadClusterAsync(firstEntry, start, head);
                await reader.ReadClusterAsync(lastEntry, end, tail);
                await guestData.WriteAsync(start, host, (ReadOnlyMemory<byte>[])[head, data, tail]);
            }
            finally
            {
                ArrayPool<byte>.Shared.Return(around);
            }
        }
        finally
        {
            metadata.Order.NoteDataWritten();
        }
    }

    /// <summary>Points the guest clusters to their new host clusters and frees what they pointed to.</summary>
    private async ValueTask LinkAsync(GuestCluster first, HostRun run, FilledRange filled)
    {
        using TablePin pin = await metadata.L2Tables.PinForChangeAsync(first);
        metadata.Health.ThrowIfFailed();
        // All or none: what is linked must not be abandoned because a later entry turns out to be damaged.
        for (int i = 0; i < run.Count; i++)
            EnsureReplaceable(metadata.L2Tables.Read(pin.Table, first + i), run.First + i);
        for (int i = 0; i < run.Count; i++)
        {
            L2Entry old = metadata.L2Tables.Read(pin.Table, first + i);
            HostCluster host = run.First + i;
            SubclusterBitmap bitmap = filled.BitmapOf(first + i, old, _geometry);
            metadata.L2Tables.Link(pin.Table, first + i, _geometry.OffsetOf(host), bitmap);
            if (Frees(old, host))
                metadata.FreeClustersOf(old, DiscardType.Never);
        }
    }

    private void EnsureReplaceable(L2Entry old, HostCluster host)
    {
        if (Frees(old, host))
            metadata.EnsureFreeable(old);
    }

    private bool Frees(L2Entry old, HostCluster host) =>
        old.Kind(_geometry) == ClusterKind.Compressed || _geometry.ClusterOf(old.Host) != host;

    private int ClusterCount(GuestOffset offset, int bytes) =>
        (int)(_geometry.ClusterOf(offset + (bytes - 1)).Index - _geometry.ClusterOf(offset).Index + 1);

    private long BytesOf(int clusterCount, GuestOffset offset) =>
        ((long)clusterCount << _geometry.ClusterBits) - _geometry.OffsetInCluster(offset);
}
