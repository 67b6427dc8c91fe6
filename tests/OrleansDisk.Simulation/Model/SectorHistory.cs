namespace OrleansDisk.Simulation.Model;

/// <summary>A content that an operation gives, or may give, to one sector.</summary>
internal sealed class SectorValue(long content, long begin)
{
    public const long Never = long.MaxValue;

    public long Content { get; } = content;

    /// <summary>When the operation began.</summary>
    public long Begin { get; } = begin;

    /// <summary>When it ended, whatever became of it.</summary>
    public long End { get; set; } = Never;

    /// <summary>Whether the sector certainly got the content: the operation succeeded.</summary>
    public bool IsCertain { get; set; }

    /// <summary>Whether it is on stable storage.</summary>
    public bool IsDurable { get; set; }

    public SectorValue Clone() => new(Content, Begin) { End = End, IsCertain = IsCertain, IsDurable = IsDurable };
}

/// <summary>
/// What one sector may hold. Operations overlap: a content is out of the question only when another one was begun after
/// it had ended, and is certain to be there.
/// </summary>
internal sealed class SectorHistory
{
    /// <summary>All contents that a read under way could still meet.</summary>
    private readonly List<SectorValue> _values = [];

    /// <summary>Those that a crash could bring back.</summary>
    private readonly List<SectorValue> _afterCrash = [];

    public SectorHistory(long content)
    {
        var first = new SectorValue(content, begin: 0) { End = 0, IsCertain = true, IsDurable = true };
        _values.Add(first);
        _afterCrash.Add(first);
    }

    public SectorValue Add(long content, long now)
    {
        var value = new SectorValue(content, now);
        _values.Add(value);
        _afterCrash.Add(value);
        return value;
    }

    /// <summary>The sector was seen to hold a content, and nothing under way can change it.</summary>
    public void Pin(long content, long now)
    {
        SectorValue value = Add(content, now);
        (value.End, value.IsCertain) = (now, true);
    }

    /// <summary>After a crash: what is there is all that there is.</summary>
    public void Reset(long content, long now, bool isDurable)
    {
        _values.Clear();
        if (isDurable)
            _afterCrash.Clear();
        SectorValue value = Add(content, now);
        (value.End, value.IsCertain, value.IsDurable) = (now, true, isDurable);
        foreach (SectorValue underWay in _afterCrash)
            underWay.End = Math.Min(underWay.End, now);
    }

    /// <summary>A flush that began at a time has succeeded.</summary>
    public void Flushed(long begin)
    {
        bool changed = false;
        foreach (SectorValue value in _afterCrash)
        {
            if (value.IsCertain && !value.IsDurable && value.End <= begin)
                changed = value.IsDurable = true;
        }
        if (changed)
            DropSuperseded();
    }

    /// <summary>Contents whose time is over once some are durable.</summary>
    public void DropSuperseded()
    {
        long latest = 0;
        foreach (SectorValue value in _afterCrash)
        {
            if (value.IsDurable)
                latest = Math.Max(latest, value.Begin);
        }
        _afterCrash.RemoveAll(value => value.End < latest);
    }

    /// <summary>The time before which a content must not have ended to be met by a read that begins now.</summary>
    public long ReadableFrom()
    {
        long latest = 0;
        foreach (SectorValue value in _values)
        {
            if (value.IsCertain && value.End != SectorValue.Never)
                latest = Math.Max(latest, value.Begin);
        }
        return latest;
    }

    public bool MayRead(long content, long readableFrom)
    {
        foreach (SectorValue value in _values)
        {
            if (value.Content == content && value.End >= readableFrom)
                return true;
        }
        return false;
    }

    public bool MayHoldAfterCrash(long content)
    {
        foreach (SectorValue value in _afterCrash)
        {
            if (value.Content == content)
                return true;
        }
        return false;
    }

    /// <summary>The one content that a read can meet, or null when there are several.</summary>
    public long? Only()
    {
        long from = ReadableFrom();
        long? only = null;
        foreach (SectorValue value in _values)
        {
            if (value.End < from || value.Content == only)
                continue;
            if (only is not null)
                return null;
            only = value.Content;
        }
        return only;
    }

    public string DescribeAfterCrash() => string.Join(", ", _afterCrash.Select(value => SectorContent.Describe(value.Content)));

    public string DescribeReadable(long from) =>
        string.Join(", ", _values.Where(value => value.End >= from).Select(value => SectorContent.Describe(value.Content)));

    /// <summary>A copy that knows what a crash may bring back, and no reads.</summary>
    public SectorHistory Clone()
    {
        var clone = new SectorHistory(0);
        clone._values.Clear();
        clone._afterCrash.Clear();
        foreach (SectorValue value in _afterCrash)
            clone._afterCrash.Add(value.Clone());
        return clone;
    }
}
