using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Qcow2.Metadata;

/// <summary>
/// Where compressed clusters go: byte behind byte in host clusters that they share. Each has a reference in every host
/// cluster that it touches, so a host cluster's refcount counts those in it.
/// </summary>
internal sealed class CompressedSpace(IBlockFile file, ClusterGeometry geometry, ClusterAllocator allocator)
{
    private Task? _reserving;
    private bool _hasReserved;

    /// <summary>Behind the last compressed cluster; at a cluster's start, or 0, when its host cluster is full or gone.</summary>
    private HostOffset _next;

    /// <summary>Reserves bytes, with their references, one caller after the other so that they lie close.</summary>
    /// <param name="bytes">How many: fewer than a cluster has.</param>
    /// <exception cref="NoSpaceException">The format has no room left for compressed clusters.</exception>
    public async ValueTask<CompressedExtent> ReserveAsync(int bytes)
    {
        while (_reserving is { } other)
            await other;
        var reserved = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        _reserving = reserved.Task;
        try
        {
            return await ReserveAloneAsync(bytes);
        }
        finally
        {
            _reserving = null;
            reserved.SetResult();
        }
    }

    /// <summary>Gives back bytes to which nothing ever pointed.</summary>
    public ValueTask AbandonAsync(CompressedExtent extent)
    {
        (HostCluster first, long count) = geometry.ClustersOf(extent);
        return allocator.AbandonAsync(first, (int)count);
    }

    /// <summary>A host cluster became free: nothing is put into it any more.</summary>
    public void Leave(HostCluster cluster)
    {
        if (geometry.ClusterOf(_next) == cluster)
            _next = default;
    }

    /// <summary>
    /// Ends the file with a whole sector, up to which the last cluster's entry may reach: other programs expect it to
    /// be there. Nothing else may be under way.
    /// </summary>
    public async ValueTask SettleAsync()
    {
        long partial = file.LengthBytes % CompressedExtent.SectorBytes;
        if (!_hasReserved || partial == 0)
            return;
        try
        {
            await file.SetLengthAsync(file.LengthBytes - partial + CompressedExtent.SectorBytes);
        }
        catch (BlockFileException)
        {
            // The specification lets the file end here.
        }
    }

    private async ValueTask<CompressedExtent> ReserveAloneAsync(int bytes)
    {
        HostOffset start = _next;
        HostCluster current = geometry.ClusterOf(start);
        int room = geometry.IsAligned(start.Bytes) ? 0 : geometry.ClusterBytes - (int)(start.Bytes & (geometry.ClusterBytes - 1));
        // The host cluster may become free until it has the new reference, and not after that.
        if (room > 0 && !await allocator.TryRaiseAsync(current, isWanted: () => _next == start))
            room = 0;
        if (room < bytes)
            start = await ExtendAsync(current, start, room);
        var extent = new CompressedExtent(start, bytes);
        if (start.Bytes + bytes > 1L << geometry.CompressedOffsetBits)
        {
            await AbandonAsync(extent);
            throw new NoSpaceException($"'{file.Name}' is too long for more compressed clusters");
        }
        _next = start + bytes;
        _hasReserved = true;
        return extent;
    }

    /// <summary>Goes on in a new host cluster: behind the last bytes if it is the next one, else at its start.</summary>
    private async ValueTask<HostOffset> ExtendAsync(HostCluster current, HostOffset start, int room)
    {
        HostRun run;
        try
        {
            run = await allocator.ReserveAsync(1, "compressed cluster");
        }
        catch (Exception) when (room > 0)
        {
            await allocator.AbandonAsync(current, 1);
            throw;
        }
        if (room > 0 && run.First == current + 1)
            return start;
        if (room > 0)
            await allocator.AbandonAsync(current, 1);
        return geometry.OffsetOf(run.First);
    }
}
