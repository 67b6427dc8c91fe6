using System.Buffers.Binary;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Qcow2.Metadata;

/// <summary>
/// The only one that asks the file to flush, and the only one that writes tables: what nothing reaches yet, barrier, the
/// pointer to it, barrier. docs/consistency.md states the rules as W1 to W9.
/// </summary>
internal sealed class WriteOrder
{
    private readonly IBlockFile _file;
    private readonly IBlockFile _dataFile;
    private readonly ImageHealth _health;
    private readonly PointerTable _l1;
    private readonly TableCache _l2Tables;
    private readonly PointerTable _refcountTable;
    private readonly TableCache _refcountBlocks;
    private readonly FreedClusters _freed;
    private readonly int _clusterBytes;

    /// <summary>What waits for the write-back that has not begun.</summary>
    private TaskCompletionSource? _next;
    private Task _running = Task.CompletedTask;
    private bool _hasUnflushedData;

    public WriteOrder(IBlockFile file, IBlockFile dataFile, ImageHealth health, int clusterBytes, PointerTable l1, TableCache l2Tables,
        PointerTable refcountTable, TableCache refcountBlocks, FreedClusters freed)
    {
        (_file, _dataFile, _health, _clusterBytes, _l1, _l2Tables) = (file, dataFile, health, clusterBytes, l1, l2Tables);
        (_refcountTable, _refcountBlocks, _freed) = (refcountTable, refcountBlocks, freed);
        // Who had the image before may have died with writes acknowledged and not flushed: the first flush is for them, too.
        _hasUnflushedData = !file.IsReadOnly;
    }

    /// <summary>Whether a write-back is under way.</summary>
    public bool IsWriting { get; private set; }

    /// <summary>Told when clusters may have become releasable.</summary>
    public Action? ClustersUnreferenced { get; set; }

    /// <summary>Told the refcount table's new place, and its length in clusters, when the header says so too.</summary>
    public Action<HostOffset, int>? RefcountTableMoved { get; set; }

    /// <summary>Where what a table held goes before it is written over, or null.</summary>
    public SettledView? View { get; set; }

    /// <summary>Called before the refcounts of reserved clusters are written, so before anything leads to them.</summary>
    public Func<ValueTask>? WritingRefcounts { get; set; }

    /// <summary>
    /// Guest data was written that no barrier covers yet. Called when the write has ended and before anyone is told so,
    /// by any thread. Either the flag is set when this returns, and the next flush has work to do; or a write-back is
    /// about to clear it, and its barrier, which comes after that, covers the write.
    /// </summary>
    public void NoteDataWritten()
    {
        Interlocked.MemoryBarrier(); // the write is done before the flag is looked at
        if (!Volatile.Read(ref _hasUnflushedData))
            Volatile.Write(ref _hasUnflushedData, true);
    }

    /// <summary>
    /// Puts on stable storage everything that completed before this call: guest data, and the metadata that leads to it.
    /// Calls that come while a write-back runs share the next one.
    /// </summary>
    /// <exception cref="Qcow2FailedException">A write or a barrier failed; the image has stopped.</exception>
    public Task FlushAsync()
    {
        if (!IsWriting && !HasWork && !_health.HasFailed)
            return Task.CompletedTask;
        _next ??= new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        Task flushed = _next.Task;
        if (!IsWriting)
            _running = WriteBackUntilNobodyWaitsAsync();
        return flushed;
    }

    /// <summary>Waits until no write-back is under way, whatever became of it.</summary>
    public Task IdleAsync() => _running;

    /// <summary>Makes earlier writes durable, writes <paramref name="bytes"/> into the header, and makes those durable.</summary>
    public Task WriteHeaderAsync(int field, byte[] bytes) =>
        BetweenWriteBacksAsync(() => WriteHeaderAsync([new HeaderWrite(field, bytes)]));

    /// <summary>
    /// Makes earlier writes durable, then each step before the next begins. Call it from
    /// <see cref="BetweenWriteBacksAsync"/>: a write-back may change the header, too.
    /// </summary>
    public async Task WriteHeaderAsync(IReadOnlyList<HeaderWrite> steps)
    {
        _health.ThrowIfFailed();
        try
        {
            await FlushDataAsync();
            await _file.FlushAsync();
            foreach (HeaderWrite step in steps)
            {
                _health.ThrowIfFailed();
                await WriteAsync(step.Offset, step.Bytes);
                await _file.FlushAsync();
            }
        }
        catch (BlockFileException e)
        {
            throw Failed(e);
        }
    }

    /// <summary>Writes a table over itself, and makes that durable; see <see cref="WriteHeaderAsync(IReadOnlyList{HeaderWrite})"/>.</summary>
    public async Task WriteInPlaceAsync(HostOffset table, ReadOnlyMemory<byte> bytes)
    {
        _health.ThrowIfFailed();
        try
        {
            await _file.FlushAsync();
            await _file.WriteAsync(table.Bytes, bytes);
            await _file.FlushAsync();
        }
        catch (BlockFileException e)
        {
            throw Failed(e);
        }
    }

    /// <summary>Cuts the file behind everything that is in use, and makes that durable.</summary>
    /// <returns>False if the file can't be cut.</returns>
    public async Task<bool> CutFileAsync(long bytes)
    {
        try
        {
            await _file.SetLengthAsync(bytes);
        }
        catch (BlockFileException)
        {
            return false; // a block device, say: what is behind the end is free all the same
        }
        await BetweenWriteBacksAsync(() => WriteHeaderAsync([]));
        return true;
    }

    /// <summary>Runs <paramref name="work"/> while no write-back does; those that are asked for meanwhile come after it.</summary>
    public async Task BetweenWriteBacksAsync(Func<Task> work)
    {
        while (IsWriting)
            await _running;
        IsWriting = true;
        var ended = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        _running = ended.Task;
        try
        {
            await work();
        }
        finally
        {
            IsWriting = false;
            if (_next is not null)
                _running = WriteBackUntilNobodyWaitsAsync();
            ended.SetResult();
        }
    }

    private bool HasWork => Volatile.Read(ref _hasUnflushedData) || _l1.IsDirty || _l2Tables.HasDirty || _refcountBlocks.HasDirty
        || _refcountTable.IsDirty || _freed.AwaitsWriteBack;

    private async Task WriteBackUntilNobodyWaitsAsync()
    {
        IsWriting = true;
        while (_next is { } waiting)
        {
            _next = null;
            try
            {
                await WriteBackAsync();
                waiting.SetResult();
            }
            catch (Exception e)
            {
                _health.Fail(e);
                waiting.SetException(e);
                _ = waiting.Task.Exception; // somebody may wait, nobody must
            }
        }
        IsWriting = false;
    }

    private async Task WriteBackAsync()
    {
        _health.ThrowIfFailed();
        if (!HasWork)
            return;

        // Everything is taken at one moment: links made from here on belong to the next write-back.
        var work = new Work();
        _refcountBlocks.TakeDirty(work.RefcountBlocks);
        work.RefcountTableMoved = _refcountTable.TakeDirty(work.RefcountTable);
        _l2Tables.TakeDirty(work.L2Tables);
        _l1.TakeDirty(work.L1);
        List<FreedRun> freed = _freed.Take();
        (HostOffset refcountTable, int refcountTableEntries) = (_refcountTable.Offset, _refcountTable.Count);
        Volatile.Write(ref _hasUnflushedData, false);
        Interlocked.MemoryBarrier(); // the flag is down before any barrier begins
        try
        {
            if (work.RefcountBlocks.Count > 0 && WritingRefcounts is not null)
                await WritingRefcounts();
            await WriteAsync(work.RefcountBlocks);
            if (work.RefcountTable.Count > 0)
                await WriteRefcountTableAsync(work, refcountTable, refcountTableEntries);
            await FlushDataAsync(); // W9
            await _file.FlushAsync(); // W1, W2: data, copies, refcounts and new tables are there ...
            if (work.L2Tables.Count + work.L1.Count > 0)
            {
                await WriteAsync(work.L2Tables); // ... before anything points to them
                await WriteAsync(work.L1);
                await _file.FlushAsync(); // W3: the pointers are gone ...
            }
        }
        catch (BlockFileException e)
        {
            throw Failed(e);
        }
        finally
        {
            work.Release();
        }
        _freed.Unreferenced(freed); // ... before the refcounts go down
        ClustersUnreferenced?.Invoke();
    }

    /// <summary>W4: blocks before the table entries that lead to them, a moved table before the header.</summary>
    private async Task WriteRefcountTableAsync(Work work, HostOffset table, int entryCount)
    {
        if (!work.RefcountTableMoved)
        {
            await _file.FlushAsync();
            await WriteAsync(work.RefcountTable);
            return;
        }
        await WriteAsync(work.RefcountTable);
        await _file.FlushAsync();
        byte[] fields = new byte[sizeof(ulong) + sizeof(uint)];
        BinaryPrimitives.WriteUInt64BigEndian(fields, (ulong)table.Bytes);
        int clusters = entryCount / (_clusterBytes / sizeof(ulong));
        BinaryPrimitives.WriteUInt32BigEndian(fields.AsSpan(sizeof(ulong)), (uint)clusters);
        await WriteAsync(HeaderField.RefcountTableOffset, fields);
        RefcountTableMoved?.Invoke(table, clusters);
    }

    /// <summary>W9: an external data file is flushed before the image's own; else the next barrier covers guest data.</summary>
    private ValueTask FlushDataAsync() => ReferenceEquals(_dataFile, _file) ? ValueTask.CompletedTask : _dataFile.FlushAsync();

    private async Task WriteAsync(List<DirtyPart> parts)
    {
        foreach (DirtyPart part in parts)
            await WriteAsync(part.Offset.Bytes, part.Bytes);
    }

    private async ValueTask WriteAsync(long offset, ReadOnlyMemory<byte> bytes)
    {
        if (View is not null)
            await View.KeepAsync(offset, bytes.Length);
        await _file.WriteAsync(offset, bytes);
    }

    private Qcow2FailedException Failed(BlockFileException cause)
    {
        _health.Fail(cause);
        return new Qcow2FailedException($"'{_file.Name}' has stopped; open it again: {cause.Message}", cause);
    }

    /// <summary>What one write-back writes.</summary>
    private sealed class Work
    {
        public List<DirtyPart> RefcountBlocks { get; } = [];

        public List<DirtyPart> RefcountTable { get; } = [];

        public bool RefcountTableMoved { get; set; }

        public List<DirtyPart> L2Tables { get; } = [];

        public List<DirtyPart> L1 { get; } = [];

        public void Release()
        {
            foreach (List<DirtyPart> parts in (ReadOnlySpan<List<DirtyPart>>)[RefcountBlocks, RefcountTable, L2Tables, L1])
                parts.ForEach(part => part.Release());
        }
    }
}
