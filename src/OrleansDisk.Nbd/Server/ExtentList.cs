using System.Buffers;

namespace OrleansDisk.Nbd.Server;

/// <summary>A run of bytes of one state.</summary>
internal readonly record struct Extent(long Length, NbdExtentState State);

/// <summary>The extents reported for one request: consecutive, neighbours of one state merged, bounded in number.</summary>
internal sealed class ExtentList
{
    private const int KeptCapacity = PooledRequest.MaxReadExtents;

    private Extent[] _kept;
    private Extent[] _extents;
    private long _rangeBytes;
    private long _maxExtentBytes;
    private int _maxCount;
    private int _count;

    public ExtentList() => _extents = _kept = new Extent[4];

    /// <summary>Bytes of the range that are described; can exceed it by the last extent.</summary>
    public long CoveredBytes { get; private set; }

    public ReadOnlySpan<Extent> Extents => _extents.AsSpan(0, _count);

    /// <summary>Begins a list.</summary>
    /// <param name="rangeBytes">Bytes of the range that is to be described.</param>
    /// <param name="maxCount">Most extents.</param>
    /// <param name="maxExtentBytes">The longest extent that a reply can tell.</param>
    public void Start(long rangeBytes, int maxCount, long maxExtentBytes = uint.MaxValue)
    {
        _rangeBytes = rangeBytes;
        _maxExtentBytes = maxExtentBytes;
        _maxCount = maxCount;
        _count = 0;
        CoveredBytes = 0;
    }

    /// <summary>Gives back what only a long list needed.</summary>
    public void End()
    {
        _count = 0;
        if (_extents == _kept)
            return;
        ArrayPool<Extent>.Shared.Return(_extents);
        _extents = _kept;
    }

    /// <summary>Appends an extent; whether more are of use. Extents beyond that are ignored.</summary>
    public bool Add(long length, NbdExtentState state)
    {
        if (length <= 0 || CoveredBytes >= _rangeBytes)
            return CoveredBytes < _rangeBytes;
        // The last one may go past the range, but no further than a reply can tell.
        length = Math.Min(length, Math.Max(_rangeBytes - CoveredBytes, _maxExtentBytes));
        // Two extents of one state may add up to more than a length can say.
        if (_count > 0 && _extents[_count - 1].State == state && _extents[_count - 1].Length <= _maxExtentBytes - length)
        {
            _extents[_count - 1] = new Extent(_extents[_count - 1].Length + length, state);
        }
        else
        {
            if (_count == _maxCount)
                return false;
            if (_count == _extents.Length)
                Grow();
            _extents[_count++] = new Extent(length, state);
        }
        CoveredBytes += length;
        return CoveredBytes < _rangeBytes;
    }

    /// <summary>Cuts the last extent where it passes the end of the range.</summary>
    public void TrimToRange()
    {
        if (CoveredBytes <= _rangeBytes || _count == 0)
            return;
        Extent last = _extents[_count - 1];
        _extents[_count - 1] = last with { Length = last.Length - (CoveredBytes - _rangeBytes) };
        CoveredBytes = _rangeBytes;
    }

    private void Grow()
    {
        if (_extents.Length < KeptCapacity)
        {
            Array.Resize(ref _kept, _kept.Length * 2);
            _extents = _kept;
            return;
        }
        Extent[] longest = ArrayPool<Extent>.Shared.Rent(PooledRequest.MaxStatusExtents);
        _extents.CopyTo(longest, 0);
        _extents = longest;
    }
}
