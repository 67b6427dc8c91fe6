using System.Buffers.Binary;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Qcow2.Check;

/// <summary>
/// Follows L1 and L2 tables and counts what they reference. An L2 table that several L1 entries share is examined
/// once and counted as often as it is referenced, so that the work is bounded by the file and not by its claims.
/// </summary>
internal sealed class MappingCheck
{
    private readonly Header _header;
    private readonly ClusterGeometry _geometry;
    private readonly ReferenceCounts _references;
    private readonly CheckLog _log;
    private readonly TableReader _l1Reader;
    private readonly TableReader _l2Reader;
    private readonly Dictionary<long, ulong> _repeats = [];

    /// <summary>Standard clusters from here on do not lie whole in the file, and are counted the slow way.</summary>
    private readonly long _wholeEnd;
    private readonly ulong _unusualMask;
    private long _nextContiguous;

    public MappingCheck(IBlockFile file, Header header, ReferenceCounts references, CheckLog log)
    {
        (_header, _geometry, _references, _log) = (header, header.Geometry, references, log);
        _l1Reader = new TableReader(file);
        _l2Reader = new TableReader(file);
        _wholeEnd = file.LengthBytes - _geometry.ClusterBytes;
        // In an entry of a standard cluster only the copied flag and an aligned offset are set.
        _unusualMask = ~L2Entry.Data(new HostOffset(ClusterGeometry.HostOffsetLimit - _geometry.ClusterBytes), copied: true).Raw;
    }

    public long AllocatedClusters { get; private set; }

    public long FragmentedClusters { get; private set; }

    public long CompressedClusters { get; private set; }

    /// <summary>Whether some entry of the active tables leads somewhere without a copied flag.</summary>
    public bool HasUncopied { get; private set; }

    /// <summary>Whether unaligned zero clusters are going to be repaired, and so are not counted.</summary>
    public bool RepairsZeroClusters { get; init; }

    /// <summary>L2 tables with unaligned zero clusters, where <see cref="RepairsZeroClusters"/>.</summary>
    public List<long> TablesToRepair { get; } = [];

    /// <summary>Counts an L1 table and all below it; the active one also gives the statistics.</summary>
    public async Task CountL1TableAsync(long offset, long entryCount, bool isActive)
    {
        // Two L1 tables never share a cluster; following one twice would only repeat what the first one said.
        bool isShared = _references.Add(offset, entryCount * sizeof(ulong), ClusterUse.L1Table);
        if (isShared && !isActive)
            return;
        long bytes = _l1Reader.ReadableBytes(offset, entryCount * sizeof(ulong));
        for (long at = 0; at < bytes;)
        {
            ReadOnlyMemory<byte> window = await _l1Reader.ReadAsync(offset + at, bytes - at);
            for (int entry = 0; entry + sizeof(ulong) <= window.Length; entry += sizeof(ulong))
            {
                ulong raw = BinaryPrimitives.ReadUInt64BigEndian(window.Span[entry..]);
                if (raw != 0)
                    await CountL1EntryAsync(new L1Entry(raw), isActive);
            }
            at += window.Length;
        }
    }

    /// <summary>Adds the references of L2 tables that were met more than once; call it when all L1 tables are counted.</summary>
    public async Task CountRepeatsAsync()
    {
        foreach ((long table, ulong times) in _repeats)
        {
            if (times == 0)
                continue;
            await ScanL2TableAsync(table, window =>
            {
                for (int index = 0; index < window.Length / _geometry.L2EntryBytes; index++)
                    AddReference(L2Entry.Read(window, index, _geometry), times);
            });
        }
    }

    private async ValueTask CountL1EntryAsync(L1Entry entry, bool isActive)
    {
        if ((entry.Raw & L1Entry.ReservedMask) != 0)
            _log.Corruption($"ERROR found L1 entry with reserved bits set: {entry.Raw:x}");
        if (!entry.IsAllocated)
        {
            if (entry.IsCopied)
                _log.Corruption($"ERROR found L1 entry with the copied flag but without an L2 table: {entry.Raw:x}");
            return;
        }
        HasUncopied |= isActive && !entry.IsCopied;
        long table = entry.L2Table.Bytes;
        _references.Add(table, _geometry.ClusterBytes, ClusterUse.L2Table);
        if (!_geometry.IsAligned(table))
        {
            _log.Corruption($"ERROR l2_offset={table:x}: Table is not cluster aligned; L1 entry corrupted");
            _references.MarkIncomplete();
            HasUncopied = true;
            return;
        }
        if (!_repeats.TryAdd(table, 0))
        {
            _repeats[table]++;
            return;
        }
        _nextContiguous = 0;
        bool mustRepair = false;
        await ScanL2TableAsync(table, window => mustRepair |= CountL2Entries(window, isActive));
        if (mustRepair)
            TablesToRepair.Add(table);
    }

    private async ValueTask ScanL2TableAsync(long table, VisitEntries visit)
    {
        long bytes = _l2Reader.ReadableBytes(table, _geometry.ClusterBytes);
        for (long at = 0; at < bytes;)
        {
            ReadOnlyMemory<byte> window = await _l2Reader.ReadAsync(table + at, bytes - at);
            visit(window.Span);
            at += window.Length;
        }
    }

    /// <summary>Counts entries as they lie in an L2 table, and says whether one of them is to be repaired.</summary>
    private bool CountL2Entries(ReadOnlySpan<byte> window, bool isActive)
    {
        bool mustRepair = false;
        int step = _geometry.L2EntryBytes;
        bool isPlain = !_geometry.HasSubclusters && !_geometry.HasExternalData;
        for (int at = 0; at + step <= window.Length; at += step)
        {
            ulong raw = BinaryPrimitives.ReadUInt64BigEndian(window[at..]);
            if (isPlain)
            {
                if (raw == 0)
                    continue;
                // What nearly all entries are: a whole standard cluster, and nothing else to say of it.
                var entry = new L2Entry(raw);
                if ((raw & _unusualMask) == 0 && entry.Host.Bytes is not 0 and long host && host <= _wholeEnd)
                {
                    _references.AddData(host >> _geometry.ClusterBits);
                    if (isActive)
                        AddToStatistics(host, entry.IsCopied);
                    continue;
                }
            }
            mustRepair |= CountUnusual(L2Entry.Read(window[at..], 0, _geometry), isActive);
        }
        return mustRepair;
    }

    private bool CountUnusual(L2Entry entry, bool isActive)
    {
        if (entry == L2Entry.Unallocated)
            return false;
        if (!Examine(entry))
            return true;
        AddReference(entry, 1);
        if (!isActive)
            return false;
        if (entry.Kind(_geometry) == ClusterKind.Compressed)
        {
            AllocatedClusters++;
            CompressedClusters++;
            FragmentedClusters++;
        }
        else if (entry.HasHost(_geometry))
        {
            AddToStatistics(entry.Host.Bytes, entry.IsCopied);
        }
        return false;
    }

    /// <summary>Looks for what is wrong with an entry by itself. False: it is going to say zero and nothing else.</summary>
    private bool Examine(L2Entry entry)
    {
        ClusterKind kind = entry.Kind(_geometry);
        if (kind == ClusterKind.Compressed)
        {
            SubclusterCheck.ExamineCompressed(entry, _log);
            if (_geometry.HasExternalData)
                _log.Corruption($"ERROR compressed cluster with data file, entry=0x{entry.Raw:x}");
            if (entry.IsCopied)
            {
                _log.Corruption($"ERROR: coffset=0x{entry.Compressed(_geometry).Start.Bytes:x}: "
                    + $"copied flag must never be set for compressed clusters");
            }
            return true;
        }
        if ((entry.Raw & L2Entry.ReservedMask) != 0)
            _log.Corruption($"ERROR found l2 entry with reserved bits set: {entry.Raw:x}");
        SubclusterCheck.Examine(entry, _geometry, _log);
        if (kind is ClusterKind.ZeroPlain or ClusterKind.ZeroAllocated && _header.Version < 3)
            _log.Corruption($"ERROR found zero cluster entry in an image of version 2: {entry.Raw:x}");
        if (!entry.HasHost(_geometry) || _geometry.IsAligned(entry.Host.Bytes))
            return true;
        if (!entry.IsUnalignedZero(_geometry))
        {
            _log.Corruption($"ERROR offset={entry.Host.Bytes:x}: Data cluster is not properly aligned; L2 entry corrupted.");
            return true;
        }
        _log.Damage(RepairsZeroClusters, $"offset={entry.Host.Bytes:x}: Preallocated cluster is not properly aligned; L2 entry corrupted.");
        return !RepairsZeroClusters;
    }

    private void AddReference(L2Entry entry, ulong times)
    {
        if (_geometry.HasExternalData)
            return; // a data file's clusters are not counted
        if (entry.Kind(_geometry) == ClusterKind.Compressed)
        {
            CompressedExtent extent = entry.Compressed(_geometry);
            _references.Add(extent.Start.Bytes, extent.Bytes, ClusterUse.CompressedData, times);
        }
        else if (entry.HasHost(_geometry) && !(RepairsZeroClusters && entry.IsUnalignedZero(_geometry)))
        {
            _references.Add(entry.Host.Bytes, _geometry.ClusterBytes, ClusterUse.Data, times);
        }
    }

    private void AddToStatistics(long host, bool isCopied)
    {
        HasUncopied |= !isCopied;
        AllocatedClusters++;
        if (_nextContiguous != 0 && host != _nextContiguous)
            FragmentedClusters++;
        _nextContiguous = host + _geometry.ClusterBytes;
    }

    private delegate void VisitEntries(ReadOnlySpan<byte> window);
}
