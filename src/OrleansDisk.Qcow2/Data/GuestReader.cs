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
            ClusterRun run = FindRun(table, offset, buffer.Length);
            if (run.Kind == ClusterKind.Data && BytesOf(run, offset) >= buffer.Length)
                return data.ReadAsync(offset, HostOf(run, offset), buffer);
        }
        return ReadRunsAsync(offset, buffer);
    }

    /// <summary>What this layer says of the start of a range inside the disk. The caller is inside the gate.</summary>
    public async ValueTask<DiskExtent> GetExtentAsync(GuestOffset offset, long bytes)
    {
        (ClusterRun run, long length) = await FindAsync(offset, bytes);
        long? host = run.Kind is ClusterKind.Data or ClusterKind.ZeroAllocated ? HostOf(run, offset).Bytes : null;
        DiskExtentState state = run.Kind switch
        {
            ClusterKind.Unallocated => DiskExtentState.Unallocated,
            ClusterKind.ZeroPlain => DiskExtentState.Zero,
            ClusterKind.ZeroAllocated => DiskExtentState.ZeroAllocated,
            _ => DiskExtentState.Data,
        };
        return new DiskExtent(length, state, host) { IsCompressed = run.Kind == ClusterKind.Compressed };
    }

    /// <summary>
    /// Fills the buffer with what the guest sees of a part of one cluster, given that cluster's entry: for copies on
    /// write, whose cluster is reserved, so that the entry stays true.
    /// </summary>
    public async ValueTask ReadClusterAsync(L2Entry entry, GuestOffset offset, Memory<byte> buffer)
    {
        if (buffer.Length > 0)
            await ReadRunAsync(new ClusterRun(entry.Kind(_geometry), _geometry.ClusterOf(offset), 1, entry), offset, buffer);
    }

    /// <summary>Whether a cluster with this entry may read as anything but zeros.</summary>
    public bool MayHoldData(L2Entry entry, GuestCluster cluster) => entry.Kind(_geometry) switch
    {
        ClusterKind.Data or ClusterKind.Compressed => true,
        ClusterKind.Unallocated => backing is not null && _geometry.OffsetOf(cluster).Bytes < backing.VirtualBytes,
        _ => false,
    };

    private async ValueTask ReadRunsAsync(GuestOffset offset, Memory<byte> buffer)
    {
        while (buffer.Length > 0)
        {
            (ClusterRun run, long length) = await FindAsync(offset, buffer.Length);
            await ReadRunAsync(run, offset, buffer[..(int)length]);
            offset += length;
            buffer = buffer[(int)length..];
        }
    }

    private async ValueTask ReadRunAsync(ClusterRun run, GuestOffset offset, Memory<byte> buffer)
    {
        switch (run.Kind)
        {
            case ClusterKind.Data:
                await data.ReadAsync(offset, HostOf(run, offset), buffer);
                break;
            case ClusterKind.Compressed:
                await _compressed.ReadAsync(run.Entry, run.First, _geometry.OffsetInCluster(offset), buffer);
                break;
            case ClusterKind.Unallocated when backing is not null:
                await backing.ReadAsync(offset.Bytes, buffer);
                break;
            default:
                buffer.Span.Clear();
                break;
        }
    }

    /// <summary>The run at an offset and the bytes of it that the range covers.</summary>
    private async ValueTask<(ClusterRun Run, long Bytes)> FindAsync(GuestOffset offset, long bytes)
    {
        GuestCluster cluster = _geometry.ClusterOf(offset);
        if (!metadata.L2Tables.IsAllocated(cluster))
        {
            long tableEnd = (offset.Bytes | (_geometry.BytesPerL2Table - 1)) + 1;
            var nothing = new ClusterRun(ClusterKind.Unallocated, cluster, 1, L2Entry.Unallocated);
            return (nothing, Math.Min(bytes, tableEnd - offset.Bytes));
        }
        using TablePin pin = await metadata.L2Tables.PinAsync(cluster);
        ClusterRun run = FindRun(pin.Table, offset, bytes);
        return (run, Math.Min(bytes, BytesOf(run, offset)));
    }

    private ClusterRun FindRun(CachedTable table, GuestOffset offset, long bytes)
    {
        GuestCluster first = _geometry.ClusterOf(offset);
        long count = _geometry.ClusterOf(offset + (bytes - 1)).Index - first.Index + 1;
        return ClusterRun.Find(table, first, (int)Math.Min(count, int.MaxValue), metadata.Header);
    }

    private long BytesOf(ClusterRun run, GuestOffset offset) =>
        ((long)run.Count << _geometry.ClusterBits) - _geometry.OffsetInCluster(offset);

    private HostOffset HostOf(ClusterRun run, GuestOffset offset) => run.Entry.Host + _geometry.OffsetInCluster(offset);
}
