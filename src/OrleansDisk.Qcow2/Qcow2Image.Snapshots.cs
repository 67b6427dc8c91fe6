using OrleansDisk.Qcow2.Concurrency;
using OrleansDisk.Qcow2.Data;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Qcow2.Metadata;
using OrleansDisk.Qcow2.Snapshots;

namespace OrleansDisk.Qcow2;

/// <content>
/// Internal snapshots and saved VM state. An operation on snapshots waits for the requests before it and keeps those after
/// it waiting; on disk it is one write of one sector, so it has happened or it has not.
/// </content>
public sealed partial class Qcow2Image
{
    private GuestReader? _vmStateReader;
    private GuestWriter? _vmStateWriter;

    /// <summary>Most bytes of VM state that the image has room for.</summary>
    public long MaxVmStateBytes => (ClusterGeometry.MaxL1Bytes / sizeof(ulong) * Header.Geometry.BytesPerL2Table) - VmStateStart;

    private long VmStateStart => Header.Geometry.L1EntryCount(Header.VirtualBytes) * Header.Geometry.BytesPerL2Table;

    /// <summary>The internal snapshots, in the order of their table.</summary>
    /// <exception cref="Qcow2FormatException">The table is damaged.</exception>
    public async ValueTask<IReadOnlyList<SnapshotEntry>> ListSnapshotsAsync()
    {
        IReadOnlyList<SnapshotEntry> snapshots = _metadata.Snapshots;
        if (IsReadOnly)
            await RunAsync(async () => snapshots = await DirectoryReader.ReadSnapshotsAsync(_file, Header));
        return snapshots;
    }

    /// <summary>A snapshot.</summary>
    /// <param name="idOrName">Its id or, if none has that id, its name.</param>
    /// <exception cref="SnapshotException">There is none.</exception>
    /// <exception cref="Qcow2FormatException">The table is damaged.</exception>
    public async Task<SnapshotEntry> FindSnapshotAsync(string idOrName) => SnapshotTable.Find(await ListSnapshotsAsync(), idOrName);

    /// <summary>
    /// Takes a snapshot of the disk, which is on stable storage when this ends. All that was written before is in it. The
    /// VM state that it has, if any, was written before and is the disk's no more.
    /// </summary>
    /// <exception cref="SnapshotException">There is no room for it: nothing has changed.</exception>
    /// <exception cref="NoSpaceException">The file can't grow: nothing has changed.</exception>
    /// <exception cref="OperationCanceledException">Nothing has changed.</exception>
    public async Task<SnapshotEntry> CreateSnapshotAsync(SnapshotDescription what, CancellationToken cancellation = default)
    {
        SnapshotEntry? snapshot = null;
        await ChangeSnapshotsAsync(async snapshots => snapshot = await snapshots.CreateAsync(what, cancellation));
        return snapshot!;
    }

    /// <summary>Makes the disk what it was when a snapshot was taken, with the size that it had. What it is now is lost.</summary>
    /// <param name="idOrName">The snapshot's id or, if none has that id, its name.</param>
    /// <param name="cancellation">Ends it with nothing changed.</param>
    /// <exception cref="SnapshotException">There is no such snapshot.</exception>
    public Task ApplySnapshotAsync(string idOrName, CancellationToken cancellation = default) =>
        ChangeSnapshotsAsync(snapshots => snapshots.ApplyAsync(idOrName, cancellation));

    /// <summary>Deletes a snapshot. What it alone held becomes free meanwhile or soon after.</summary>
    /// <param name="idOrName">The snapshot's id or, if none has that id, its name.</param>
    /// <param name="cancellation">Ends it with nothing changed.</param>
    /// <exception cref="SnapshotException">There is no such snapshot.</exception>
    public Task DeleteSnapshotAsync(string idOrName, CancellationToken cancellation = default) =>
        ChangeSnapshotsAsync(snapshots => snapshots.DeleteAsync(idOrName, cancellation));

    /// <summary>Writes saved VM state, which the next snapshot with <see cref="SnapshotDescription.VmStateBytes"/> keeps.</summary>
    /// <param name="offset">First byte, in the VM state.</param>
    /// <param name="data">The bytes; they belong to the call until it completes.</param>
    /// <exception cref="NoSpaceException">The image has no room for so much.</exception>
    public async Task WriteVmStateAsync(long offset, ReadOnlyMemory<byte> data)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(offset);
        if (offset > MaxVmStateBytes - data.Length)
            throw new NoSpaceException($"'{FileName}' has room for {MaxVmStateBytes} bytes of VM state, not for {data.Length} more at {offset}");
        using (RequestGate.Ticket ticket = await EnterForGrowthAsync(VmStateStart + offset + data.Length))
        {
            await GuardAsync(() =>
            {
                ThrowIfUnwritable(0, 0);
                _vmStateWriter ??= new GuestWriter(_metadata, _data, VmStateReader());
                return _vmStateWriter.WriteAsync(new GuestOffset(VmStateStart + offset), data);
            });
        }
    }

    /// <summary>Reads saved VM state: what was written since the last snapshot, or what the snapshot had that was applied last.</summary>
    /// <param name="offset">First byte, in the VM state.</param>
    /// <param name="buffer">Where the bytes go; what was never written reads as zeros.</param>
    public async ValueTask ReadVmStateAsync(long offset, Memory<byte> buffer)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(offset);
        await RunAsync(() =>
        {
            long mapped = (_metadata.L1Entries.Length * Header.Geometry.BytesPerL2Table) - VmStateStart - offset;
            int bytes = (int)Math.Clamp(mapped, 0, buffer.Length);
            buffer.Span[bytes..].Clear();
            return VmStateReader().ReadAsync(new GuestOffset(VmStateStart + offset), buffer[..bytes]);
        });
    }

    /// <summary>VM state does not lie over the backing file.</summary>
    private GuestReader VmStateReader() => _vmStateReader ??= new GuestReader(_metadata, _data, backing: null);

    /// <summary>Enters the gate with an L1 table that reaches to a guest offset.</summary>
    private async Task<RequestGate.Ticket> EnterForGrowthAsync(long end)
    {
        while (true)
        {
            RequestGate.Ticket shared = await _metadata.Gate.EnterSharedAsync();
            long neededCount = Header.Geometry.L1EntryCount(end);
            if (neededCount <= _metadata.L1Entries.Length || _closing is not null || IsReadOnly)
                return shared;
            shared.Dispose();
            using RequestGate.Ticket alone = await _metadata.Gate.EnterExclusiveAsync();
            long count = Math.Min(neededCount + (neededCount / 2), ClusterGeometry.MaxL1Bytes / sizeof(ulong));
            await GuardAsync(() =>
            {
                ThrowIfUnwritable(0, 0);
                return new ValueTask(_metadata.GrowL1Async((int)count));
            });
        }
    }

    private async Task ChangeSnapshotsAsync(Func<ImageSnapshots, Task> change)
    {
        using (RequestGate.Ticket ticket = await _metadata.Gate.EnterExclusiveAsync())
        {
            try
            {
                await GuardAsync(() =>
                {
                    ThrowIfUnwritable(0, 0);
                    return new ValueTask(change(new ImageSnapshots(_metadata)));
                });
            }
            catch (RefcountOverflowException e)
            {
                throw new SnapshotException(SnapshotError.RefcountsFull,
                    $"{e.Message} ({Header.Geometry.RefcountBits} bits); delete snapshots, or convert '{FileName}' with a larger refcount_bits");
            }
            finally
            {
                _metadata.Order.NoteDataWritten(); // copies that came to nothing lie in free space; the last flush covers them, too
            }
        }
        await ReclaimAsync(); // what was given up becomes free while requests go on
    }

    /// <summary>The header of an image of which a snapshot is the disk, for reading only.</summary>
    private static async Task<Header> ShowSnapshotAsync(IBlockFile file, Header header, SnapshotSelector selector)
    {
        if (!file.IsReadOnly)
            throw new Qcow2Exception($"a snapshot of '{file.Name}' can only be read: open the image read-only, or apply the snapshot");
        SnapshotEntry snapshot = SnapshotTable.Find(await DirectoryReader.ReadSnapshotsAsync(file, header), selector);
        SnapshotTable.ValidateL1(snapshot, header.Geometry);
        long virtualBytes = snapshot.VirtualBytes ?? header.VirtualBytes;
        if (virtualBytes < 0 || virtualBytes > long.MaxValue - header.Geometry.BytesPerL2Table
            || header.Geometry.L1EntryCount(virtualBytes) > snapshot.L1EntryCount)
        {
            throw new Qcow2FormatException($"the L1 table of snapshot '{snapshot.Name}' is too small for its disk of {virtualBytes} bytes");
        }
        return header with { L1Table = snapshot.L1Table, L1EntryCount = snapshot.L1EntryCount, VirtualBytes = virtualBytes };
    }
}
