using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Qcow2.Metadata;

/// <summary>
/// A bounded cache of tables of one size. Reading and changing a table that is here is synchronous; what is
/// not here is loaded by <see cref="PinAsync"/>. Dirty tables leave only through <paramref name="writeBack"/>, which
/// writes all of them in the order that is safe for their kind; <paramref name="isWriting"/> tells that it is under way.
/// </summary>
internal sealed class TableCache(IBlockFile file, int tableBytes, long capacityBytes, Func<ValueTask> writeBack, Func<bool> isWriting)
{
    /// <summary>Below two tables a copy from one to another could never be made.</summary>
    private const int MinTableCount = 2;

    private readonly int _capacity = (int)Math.Clamp(capacityBytes / tableBytes, MinTableCount, int.MaxValue);
    private readonly Dictionary<HostOffset, CachedTable> _tables = [];
    private readonly Dictionary<HostOffset, Load> _loading = [];
    private readonly LinkedList<CachedTable> _byRecency = new();
    private readonly List<CachedTable> _dirty = [];

    /// <summary>Changes with every <see cref="DropUnused"/>.</summary>
    private long _round;

    /// <summary>Whether one more table would exceed the cache's capacity.</summary>
    public bool IsFull => _tables.Count + _loading.Count >= _capacity;

    public bool HasDirty => _dirty.Count > 0;

    /// <summary>Told of each table that leaves.</summary>
    public Action<CachedTable>? Removed { get; init; }

    /// <summary>The table if it is here. It may leave at the next await unless it is pinned.</summary>
    public bool TryGet(HostOffset offset, out CachedTable table)
    {
        if (!_tables.TryGetValue(offset, out table!))
            return false;
        Touch(table);
        return true;
    }

    /// <summary>The table, loaded if need be, kept here until the pin is disposed.</summary>
    /// <exception cref="BlockFileException">It can't be read.</exception>
    public ValueTask<TablePin> PinAsync(HostOffset offset) =>
        TryGet(offset, out CachedTable table) ? new ValueTask<TablePin>(new TablePin(table)) : LoadAndPinAsync(offset);

    /// <summary>Puts a table here that is not on disk yet.</summary>
    public void Add(CachedTable table)
    {
        _tables.Add(table.Offset, table);
        table.UsedInRound = _round;
        table.Recency = _byRecency.AddLast(table);
        if (table.IsDirty)
            _dirty.Add(table);
    }

    /// <summary>Changes an entry of an L2 slice that is here.</summary>
    public void WriteL2Entry(CachedTable table, int index, L2Entry entry, ClusterGeometry geometry)
    {
        NoteDirty(table);
        table.WriteL2Entry(index, entry, geometry);
    }

    /// <summary>Changes a refcount of a refcount block that is here.</summary>
    public void SetRefcount(CachedTable table, int order, int index, ulong value)
    {
        NoteDirty(table);
        table.SetRefcount(order, index, value);
    }

    /// <summary>Drops a table whose cluster was freed.</summary>
    public void Forget(HostOffset offset)
    {
        if (!_tables.TryGetValue(offset, out CachedTable? table))
            return;
        Invariant.Assert(table.PinCount == 0, "a freed table is not in use");
        _dirty.Remove(table);
        Remove(table);
    }

    /// <summary>Drops the tables that were not used since the last call of this, but for dirty ones.</summary>
    public void DropUnused()
    {
        LinkedListNode<CachedTable>? next;
        for (LinkedListNode<CachedTable>? node = _byRecency.First; node is not null; node = next)
        {
            next = node.Next;
            CachedTable table = node.Value;
            if (!table.TakeUsed() && table.UsedInRound < _round && table.PinCount == 0 && !table.IsDirty)
                Remove(table);
        }
        _round++;
    }

    /// <summary>Takes the changes of every dirty table.</summary>
    public void TakeDirty(List<DirtyPart> parts)
    {
        foreach (CachedTable table in _dirty)
            parts.Add(table.TakeDirty());
        _dirty.Clear();
    }

    /// <summary>Waits until one more table has room, unless every table is in use at this moment.</summary>
    public async ValueTask MakeRoomAsync()
    {
        while (IsFull && !TryEvict())
        {
            if (_dirty.Count == 0 && !isWriting())
                return;
            await writeBack();
        }
    }

    private async ValueTask<TablePin> LoadAndPinAsync(HostOffset offset)
    {
        if (!_loading.TryGetValue(offset, out Load? load))
        {
            load = new Load();
            _loading.Add(offset, load);
            _ = LoadAsync(offset, load);
        }
        load.WaiterCount++;
        return TablePin.Adopt(await load.Task);
    }

    private async Task LoadAsync(HostOffset offset, Load load)
    {
        try
        {
            await MakeRoomAsync();
            byte[] bytes = GC.AllocateUninitializedArray<byte>(tableBytes);
            await file.ReadAsync(offset.Bytes, bytes);
            var table = new CachedTable(offset, bytes);
            _loading.Remove(offset);
            Add(table);
            // Pinned for the waiters from the start: else loads could evict each other's tables for ever.
            load.SetLoaded(table);
        }
        catch (Exception e)
        {
            _loading.Remove(offset);
            load.SetException(e);
        }
    }

    private bool TryEvict() => TryEvict(spareUsed: true) || TryEvict(spareUsed: false);

    /// <summary>
    /// Drops the table that was not touched for longest. One that sessions used by themselves gets a second chance: such
    /// use does not touch the order.
    /// </summary>
    private bool TryEvict(bool spareUsed)
    {
        LinkedListNode<CachedTable>? next;
        for (LinkedListNode<CachedTable>? node = _byRecency.First; node is not null; node = next)
        {
            next = node.Next;
            CachedTable table = node.Value;
            if (table.PinCount > 0 || table.IsDirty)
                continue;
            if (spareUsed && table.TakeUsed())
            {
                Touch(table);
                continue;
            }
            Remove(table);
            return true;
        }
        return false;
    }

    private void NoteDirty(CachedTable table)
    {
        if (!table.IsDirty)
            _dirty.Add(table);
    }

    private void Remove(CachedTable table)
    {
        _tables.Remove(table.Offset);
        _byRecency.Remove(table.Recency!);
        table.Recency = null;
        Removed?.Invoke(table);
    }

    private void Touch(CachedTable table)
    {
        table.UsedInRound = _round;
        if (_byRecency.Last == table.Recency)
            return;
        _byRecency.Remove(table.Recency!);
        _byRecency.AddLast(table.Recency!);
    }

    /// <summary>A table on its way from the file, and how many wait for it.</summary>
    private sealed class Load() : TaskCompletionSource<CachedTable>(TaskCreationOptions.RunContinuationsAsynchronously)
    {
        private CachedTable? _loaded;
        private int _waiterCount;

        public int WaiterCount
        {
            get => _waiterCount;
            set
            {
                // Who asks when the load is over, before the first waiter ran, is one waiter more.
                if (_loaded is not null)
                    _loaded.PinCount += value - _waiterCount;
                _waiterCount = value;
            }
        }

        public void SetLoaded(CachedTable table)
        {
            _loaded = table;
            table.PinCount += _waiterCount;
            SetResult(table);
        }
    }
}

/// <summary>Keeps a table in its cache until disposed.</summary>
internal readonly struct TablePin : IDisposable
{
    public TablePin(CachedTable table)
        : this(table, pins: 1)
    {
    }

    private TablePin(CachedTable table, int pins)
    {
        Table = table;
        table.PinCount += pins;
    }

    /// <summary>Takes over a pin that was counted already.</summary>
    public static TablePin Adopt(CachedTable table) => new(table, pins: 0);

    public CachedTable Table { get; }

    public void Dispose() => Table.PinCount--;
}
