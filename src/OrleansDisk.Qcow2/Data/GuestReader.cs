using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Metadata;

namespace OrleansDisk.Qcow2.Data;

/// <summary>Reads what the guest sees: this image's clusters, zeros, or the backing chain.</summary>
internal sealed class GuestReader(ImageMetadata metadata, GuestData data, IDiskSource? backing)
{
    private readonly CompressedClusters _compressed = new(metadata);
    private readonly ClusterGeometry _geometry = metadata.Geometry;

    /// <summary>Fills the buffer from a range inside the disk. The caller is inside the gate.</summary>
    public ValueTask ReadAsync(GuestOffset offset, Memory<byte> buffer)
    {
        if (buffer.Length == 0)
            return ValueTask.CompletedTask;
        // The usual case needs no state machine: one run of data whose table is in the cache.
        GuestCluster cluster = _geometry.ClusterOf(offset);
        if (metadata.L2Tables.TryGet(cluster, out CachedTable table))
        {
            var run = ClusterRun.Find(table, offset, buffer.Length, metadata.Header);
            if (run.Kind == ClusterKind.Data && run.Bytes == buffer.Length)
                return data.ReadAsync(offset, HostOf(run), buffer);
        }
        return ReadRunsAsync(offset, buffer);
    }

    /// <summary>What this layer says of the start of a range inside the disk. The caller is inside the gate.</summary>
    public async ValueTask<DiskExtent> GetExtentAsync(GuestOffset offset, long bytes)
    {
        ClusterRun run = await FindAsync(offset, bytes);
        long? host = run.Entry.HasHost(_geometry) ? HostOf(run).Bytes : null;
        DiskExtentState state = run.Kind switch
        {
            ClusterKind.Unallocated => DiskExtentState.Unallocated,
            ClusterKind.ZeroPlain => DiskExtentState.Zero,
            ClusterKind.ZeroAllocated => DiskExtentState.ZeroAllocated,
            _ => DiskExtentState.Data,
        };
        return new DiskExtent(run.Bytes, state, host) { IsCompressed = run.Kind == ClusterKind.Compressed };
    }

    /// <summary>
    /// Fills the buffer with what the guest sees of a part of one cluster, given that cluster's entry: for copies on
    /// write, whose cluster is reserved, so that the entry stays true.
    /// </summary>
    public async ValueTask ReadClusterAsync(L2Entry entry, GuestOffset offset, Memory<byte> buffer)
    {
        while (buffer.Length > 0)
        {
            var run = ClusterRun.InCluster(entry, offset, buffer.Length, _geometry);
            await ReadRunAsync(run, buffer[..(int)run.Bytes]);
            offset += run.Bytes;
            buffer = buffer[(int)run.Bytes..];
        }
    }

    /// <summary>Whether a part of one cluster, given that cluster's entry, may read as anything but zeros.</summary>
    public bool MayHoldData(L2Entry entry, GuestOffset offset, long bytes)
    {
        while (bytes > 0)
        {
            var run = ClusterRun.InCluster(entry, offset, bytes, _geometry);
            if (run.Kind is ClusterKind.Data or ClusterKind.Compressed || (run.Kind == ClusterKind.Unallocated && ShowsBacking(offset)))
                return true;
            offset += run.Bytes;
            bytes -= run.Bytes;
        }
        return false;
    }

    /// <summary>Whether what is unallocated at an offset comes from the backing file; else it reads as zeros.</summary>
    public bool ShowsBacking(GuestOffset offset) => backing is not null && offset.Bytes < backing.VirtualBytes;

    private async ValueTask ReadRunsAsync(GuestOffset offset, Memory<byte> buffer)
    {
        while (buffer.Length > 0)
        {
            ClusterRun run = await FindAsync(offset, buffer.Length);
            await ReadRunAsync(run, buffer[..(int)run.Bytes]);
            offset += run.Bytes;
            buffer = buffer[(int)run.Bytes..];
        }
    }

    private async ValueTask ReadRunAsync(ClusterRun run, Memory<byte> buffer)
    {
        switch (run.Kind)
        {
            case ClusterKind.Data:
                await data.ReadAsync(run.Start, HostOf(run), buffer);
                break;
            case ClusterKind.Compressed:
                await _compressed.ReadAsync(run.Entry, _geometry.ClusterOf(run.Start), _geometry.OffsetInCluster(run.Start), buffer);
                break;
            case ClusterKind.Unallocated when backing is not null:
                await backing.ReadAsync(run.Start.Bytes, buffer);
                break;
            default:
                buffer.Span.Clear();
                break;
        }
    }

    /// <summary>The run at an offset, as far as the range covers it.</summary>
    private async ValueTask<ClusterRun> FindAsync(GuestOffset offset, long bytes)
    {
        GuestCluster cluster = _geometry.ClusterOf(offset);
        if (!metadata.L2Tables.IsAllocated(cluster))
        {
            long tableEnd = (offset.Bytes | (_geometry.BytesPerL2Table - 1)) + 1;
            return new ClusterRun(ClusterKind.Unallocated, offset, Math.Min(bytes, tableEnd - offset.Bytes), L2Entry.Unallocated);
        }
        using TablePin pin = await metadata.L2Tables.PinAsync(cluster);
        return ClusterRun.Find(pin.Table, offset, bytes, metadata.Header);
    }

    private HostOffset HostOf(ClusterRun run) => run.Entry.Host + _geometry.OffsetInCluster(run.Start);
}
