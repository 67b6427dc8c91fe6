namespace OrleansDisk.Simulation.Model;

/// <summary>
/// What the disk may hold, sector by sector, after every operation and after every crash. Its clock counts beginnings
/// and ends of operations.
/// </summary>
internal sealed class DiskModel
{
    /// <summary>Of as many sectors as the largest disk has that there may be.</summary>
    private readonly List<SectorHistory> _sectors = [];

    /// <summary>Sizes that stable storage may say, in sectors, but for that of a change under way.</summary>
    private readonly SortedSet<int> _storedSizes = [];

    /// <summary>Bytes of the contents that are not one number all through.</summary>
    private readonly Dictionary<long, byte[]> _mixtures = [];
    private long _clock;
    private long _lastWrite;

    /// <param name="contents">What each sector holds at first.</param>
    public DiskModel(IReadOnlyList<long> contents)
    {
        foreach (long content in contents)
            _sectors.Add(new SectorHistory(content));
        SectorCount = contents.Count;
        _storedSizes.Add(SectorCount);
    }

    /// <summary>Sectors of the disk that the guest may use.</summary>
    public int SectorCount { get; private set; }

    /// <summary>Sectors that a size change under way would give, or null.</summary>
    public int? ResizingTo { get; private set; }

    /// <summary>Whether a crash may leave more than one size: one changes, or did when the process died that changed it.</summary>
    public bool IsSizeUnsure => ResizingTo is not null || _storedSizes.Count > 1;

    /// <summary>What the image's bitmaps must say.</summary>
    public BitmapModel Bitmaps { get; private init; } = new();

    /// <summary>Which snapshots the image has, and what they hold.</summary>
    public SnapshotModel Snapshots { get; private init; } = new();

    /// <summary>Which passwords open the disk.</summary>
    public KeyModel Keys { get; private init; } = new();

    /// <summary>A write begins; <paramref name="data"/> is what it writes. Sectors that it covers in part are nobody else's.</summary>
    public Change BeginWrite(long offset, int bytes, out byte[] data)
    {
        long write = ++_lastWrite;
        data = new byte[bytes];
        byte[] full = new byte[SectorContent.Bytes];
        var change = new Change(this, ++_clock);
        ForEachPart(offset, bytes, (sector, from, to) =>
        {
            long content = SectorContent.Of(write, sector);
            SectorContent.Fill(full, content);
            int at = (int)(((long)sector * SectorContent.Bytes) + from - offset);
            full.AsSpan(from, to - from).CopyTo(change.Data(bytes).AsSpan(at));
            change.Add(sector, to - from == SectorContent.Bytes ? content : Merge(sector, from, full.AsSpan(from, to - from)));
        });
        change.Data(bytes).CopyTo(data, 0);
        return change;
    }

    /// <summary>A range begins to become zeros.</summary>
    public Change BeginZero(long offset, long bytes)
    {
        var change = new Change(this, ++_clock);
        ForEachPart(offset, bytes, (sector, from, to) =>
            change.Add(sector, to - from == SectorContent.Bytes ? 0 : Merge(sector, from, new byte[to - from])));
        return change;
    }

    /// <summary>Whole sectors of a range may become zeros.</summary>
    public Change BeginDiscard(long offset, long bytes)
    {
        var change = new Change(this, ++_clock);
        ForEachPart(offset, bytes, (sector, from, to) =>
        {
            if (to - from == SectorContent.Bytes)
                change.Add(sector, 0);
        });
        return change;
    }

    /// <summary>The disk begins to become another one.</summary>
    /// <param name="contents">What each of its sectors will hold.</param>
    public Change BeginApply(IReadOnlyList<long> contents) => Begin(contents, new Change(this, ++_clock));

    /// <summary>The image begins to give up all that it holds.</summary>
    /// <param name="below">What each sector then reads.</param>
    public Change BeginEmpty(IReadOnlyList<long> below) => Begin(below, new Change(this, ++_clock) { IsSeenByBitmaps = false });

    public long BeginFlush() => ++_clock;

    public void EndFlush(long begin)
    {
        foreach (SectorHistory sector in _sectors)
            sector.Flushed(begin);
        Settle();
    }

    public void BeginResize(int sectorCount) => ResizingTo = sectorCount;

    /// <summary>A size change has ended, and is on stable storage; new sectors are zeros.</summary>
    public void EndResize(int sectorCount)
    {
        Settle(); // what a larger disk had there before is gone
        SetSectorCount(sectorCount);
        Bitmaps.Cut(sectorCount);
        ResizingTo = null;
        Settle();
    }

    /// <summary>Whether a crash now may leave a disk of so many sectors.</summary>
    public bool MayHaveSectorCount(int sectorCount) => _storedSizes.Contains(sectorCount) || sectorCount == ResizingTo;

    public void FailResize()
    {
        ResizingTo = null;
        Bitmaps.IsUnsure = true; // some may be in use until they are stored again
    }

    /// <summary>Where in time a read that begins now starts, for each sector.</summary>
    public long[] BeginRead(long offset, long bytes)
    {
        (int first, int count) = SectorsOf(offset, bytes);
        long[] from = new long[count];
        for (int i = 0; i < count; i++)
            from[i] = _sectors[first + i].ReadableFrom();
        return from;
    }

    /// <summary>A read has ended: each sector that it covers whole holds something that it had meanwhile.</summary>
    /// <exception cref="SimulationFailure">It does not.</exception>
    public void EndRead(long offset, ReadOnlySpan<byte> data, long[] from)
    {
        int firstSector = (int)(offset / SectorContent.Bytes);
        int end = (int)((offset + data.Length) / SectorContent.Bytes);
        for (int sector = (int)((offset + SectorContent.Bytes - 1) / SectorContent.Bytes); sector < end; sector++)
        {
            long content = SectorContent.Parse(data.Slice((int)(((long)sector * SectorContent.Bytes) - offset), SectorContent.Bytes));
            if (!_sectors[sector].MayRead(content, from[sector - firstSector]))
            {
                throw new SimulationFailure("read", $"sector {sector} reads {SectorContent.Describe(content)}; "
                    + $"allowed: {_sectors[sector].DescribeReadable(from[sector - firstSector])}");
            }
        }
    }

    /// <summary>Whether nothing but one content can be read from each sector of a range.</summary>
    public bool IsSettled(int sector) => _sectors[sector].Only() is not null;

    /// <summary>What a sector holds for certain; for sectors that are settled.</summary>
    public long Only(int sector) => _sectors[sector].Only()
        ?? throw new InvalidOperationException($"sector {sector} may hold several contents");

    /// <summary>A sector that nothing under way touches was read.</summary>
    public void Pin(int sector, ReadOnlySpan<byte> bytes)
    {
        long content = SectorContent.Parse(bytes);
        Remember(content, bytes);
        _sectors[sector].Pin(content, ++_clock);
    }

    /// <summary>Whether a sector may hold a content after a crash that leaves a disk of one of the possible sizes.</summary>
    public bool MayHoldAfterCrash(int sector, long content, int sectorCount) =>
        IsKnown(sector, sectorCount) ? _sectors[sector].MayHoldAfterCrash(content) : content == 0;

    public string DescribeAfterCrash(int sector, int sectorCount) =>
        IsKnown(sector, sectorCount) ? _sectors[sector].DescribeAfterCrash() : "zeros";

    /// <summary>The machine or the process died, and this is what the disk holds now.</summary>
    /// <param name="disk">All bytes of the disk as it was opened again.</param>
    /// <param name="isDurable">Whether all of it is on stable storage: the machine died, not just the process.</param>
    public void Restart(ReadOnlySpan<byte> disk, bool isDurable)
    {
        _clock++;
        int count = disk.Length / SectorContent.Bytes;
        if (!MayHaveSectorCount(count))
            throw new SimulationFailure("I4", $"the disk has {count} sectors after a crash, not {SectorCount}");
        SetSectorCount(count);
        ResizingTo = null;
        _storedSizes.Add(count);
        if (isDurable)
            Settle();
        ForgetBehindEnd();
        for (int sector = 0; sector < count; sector++)
        {
            ReadOnlySpan<byte> bytes = disk.Slice(sector * SectorContent.Bytes, SectorContent.Bytes);
            long content = SectorContent.Parse(bytes);
            Remember(content, bytes);
            if (!MayHoldAfterCrash(sector, content, count))
            {
                throw new SimulationFailure("I4", $"sector {sector} holds {SectorContent.Describe(content)} after a crash; "
                    + $"allowed: {DescribeAfterCrash(sector, count)}");
            }
            _sectors[sector].Reset(content, _clock, isDurable);
        }
    }

    /// <summary>A copy for what is tried and thrown away.</summary>
    public DiskModel Clone()
    {
        var clone = new DiskModel([])
        {
            _clock = _clock,
            _lastWrite = _lastWrite,
            ResizingTo = ResizingTo,
            Bitmaps = Bitmaps.Clone(),
            Snapshots = Snapshots.Clone(),
            Keys = Keys.Clone(),
        };
        clone.SectorCount = SectorCount;
        clone._storedSizes.Clear();
        clone._storedSizes.UnionWith(_storedSizes);
        clone._sectors.AddRange(_sectors.Select(sector => sector.Clone()));
        foreach ((long content, byte[] bytes) in _mixtures)
            clone._mixtures.Add(content, bytes);
        return clone;
    }

    public static (int First, int Count) SectorsOf(long offset, long bytes)
    {
        int first = (int)(offset / SectorContent.Bytes);
        return (first, (int)((offset + bytes + SectorContent.Bytes - 1) / SectorContent.Bytes) - first);
    }

    /// <summary>Keeps the bytes of a sector that a part of may be changed later.</summary>
    public void Remember(ReadOnlySpan<byte> sector) => Remember(SectorContent.Parse(sector), sector);

    public void Remember(long content, ReadOnlySpan<byte> bytes)
    {
        if (content < 0)
            _mixtures.TryAdd(content, bytes.ToArray());
    }

    /// <summary>The disk has another size; what a crash may bring back of a larger one stays known.</summary>
    private void SetSectorCount(int count)
    {
        while (_sectors.Count < count)
            _sectors.Add(new SectorHistory(0));
        SectorCount = count;
    }

    /// <summary>What dead processes left, the size and the snapshots, is on stable storage.</summary>
    private void Settle()
    {
        Snapshots.Settle();
        _storedSizes.Clear();
        _storedSizes.Add(SectorCount);
        _sectors.RemoveRange(SectorCount, _sectors.Count - SectorCount);
    }

    /// <summary>Who died gave up what is behind the disk's end: if a crash brings the end back, it may be gone.</summary>
    private void ForgetBehindEnd()
    {
        for (int sector = SectorCount; sector < _sectors.Count; sector++)
            _sectors[sector].Add(0, _clock);
    }

    /// <summary>Whether more is known of a sector than that it is new.</summary>
    private bool IsKnown(int sector, int sectorCount) =>
        sector < SectorCount || (sector < _sectors.Count && _storedSizes.Contains(sectorCount));

    private static Change Begin(IReadOnlyList<long> contents, Change change)
    {
        for (int sector = 0; sector < contents.Count; sector++)
            change.Add(sector, contents[sector]);
        return change;
    }

    private long Merge(int sector, int from, ReadOnlySpan<byte> part)
    {
        byte[] merged = new byte[SectorContent.Bytes];
        long before = Only(sector);
        if (_mixtures.TryGetValue(before, out byte[]? bytes))
            bytes.CopyTo(merged, 0);
        else
            SectorContent.Fill(merged, before);
        part.CopyTo(merged.AsSpan(from));
        long content = SectorContent.Parse(merged);
        Remember(content, merged);
        return content;
    }

    private static void ForEachPart(long offset, long bytes, Action<int, int, int> visit)
    {
        (int first, int count) = SectorsOf(offset, bytes);
        for (int sector = first; sector < first + count; sector++)
        {
            long start = (long)sector * SectorContent.Bytes;
            visit(sector, (int)Math.Max(0, offset - start), (int)Math.Min(SectorContent.Bytes, offset + bytes - start));
        }
    }

    /// <summary>What one operation does to sectors.</summary>
    internal sealed class Change(DiskModel model, long begin)
    {
        private readonly List<(int Sector, SectorValue Value)> _values = [];
        private byte[] _data = [];

        /// <summary>Whether bitmaps see it; they do not see data move between an image and what lies below it.</summary>
        public bool IsSeenByBitmaps { get; init; } = true;

        public byte[] Data(int bytes) => _data.Length == bytes ? _data : _data = new byte[bytes];

        public void Add(int sector, long content) => _values.Add((sector, model._sectors[sector].Add(content, begin)));

        /// <summary>The operation succeeded.</summary>
        /// <param name="isDurable">Whether it promised stable storage.</param>
        public void Succeed(bool isDurable)
        {
            long now = ++model._clock;
            foreach ((int sector, SectorValue value) in _values)
            {
                (value.End, value.IsCertain, value.IsDurable) = (now, true, isDurable);
                NoteChanged(sector);
                if (isDurable)
                    model._sectors[sector].DropSuperseded();
            }
            if (isDurable)
                model.Settle();
        }

        /// <summary>It failed, or promised nothing: each sector may have the content or not.</summary>
        public void EndUncertain()
        {
            long now = ++model._clock;
            foreach ((int sector, SectorValue value) in _values)
            {
                value.End = now;
                NoteChanged(sector);
            }
        }

        private void NoteChanged(int sector)
        {
            if (IsSeenByBitmaps)
                model.Bitmaps.NoteChanged(sector);
        }
    }
}
