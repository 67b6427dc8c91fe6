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
    private long _nextContiguous;

    public MappingCheck(IBlockFile file, Header header, ReferenceCounts references, CheckLog log)
    {
        (_header, _geometry, _references, _log) = (header, header.Geometry, references, log);
        _l1Reader = new TableReader(file);
        _l2Reader = new TableReader(file);
    }

    public long AllocatedClusters { get; private set; }

    public long FragmentedClusters { get; private set; }

    public long CompressedClusters { get; private set; }

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
            if (times > 0)
                await ScanL2TableAsync(table, entry => AddReference(entry, times));
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
        long table = entry.L2Table.Bytes;
        _references.Add(table, _geometry.ClusterBytes, ClusterUse.L2Table);
        if (!_geometry.IsAligned(table))
        {
            _log.Corruption($"ERROR l2_offset={table:x}: Table is not cluster aligned; L1 entry corrupted");
            return;
        }
        if (!_repeats.TryAdd(table, 0))
        {
            _repeats[table]++;
            return;
        }
        _nextContiguous = 0;
        await ScanL2TableAsync(table, l2Entry =>
        {
            Examine(l2Entry);
            AddReference(l2Entry, 1);
            if (isActive)
                AddToStatistics(l2Entry);
        });
    }

    private async ValueTask ScanL2TableAsync(long table, Action<L2Entry> visit)
    {
        long bytes = _l2Reader.ReadableBytes(table, _geometry.ClusterBytes);
        for (long at = 0; at < bytes;)
        {
            ReadOnlyMemory<byte> window = await _l2Reader.ReadAsync(table + at, bytes - at);
            ReadOnlySpan<byte> span = window.Span;
            for (int index = 0; index < span.Length / _geometry.L2EntryBytes; index++)
            {
                var entry = L2Entry.Read(span, index, _geometry);
                if (entry != L2Entry.Unallocated)
                    visit(entry);
            }
            at += window.Length;
        }
    }

    private void Examine(L2Entry entry)
    {
        if (entry.Kind(_geometry) == ClusterKind.Compressed)
        {
            SubclusterCheck.ExamineCompressed(entry, _log);
            if (_geometry.HasExternalData)
                _log.Corruption($"ERROR compressed cluster with data file, entry=0x{entry.Raw:x}");
            if (entry.IsCopied)
            {
                _log.Corruption($"ERROR: coffset=0x{entry.Compressed(_geometry).Start.Bytes:x}: "
                    + "copied flag must never be set for compressed clusters");
            }
            return;
        }
        if ((entry.Raw & L2Entry.ReservedMask) != 0)
            _log.Corruption($"ERROR found l2 entry with reserved bits set: {entry.Raw:x}");
        SubclusterCheck.Examine(entry, _geometry, _log);
        if (entry.Kind(_geometry) is ClusterKind.ZeroPlain or ClusterKind.ZeroAllocated && _header.Version < 3)
            _log.Corruption($"ERROR found zero cluster entry in an image of version 2: {entry.Raw:x}");
        if (entry.HasHost(_geometry) && !_geometry.IsAligned(entry.Host.Bytes))
        {
            bool isData = _geometry.HasSubclusters ? entry.Bitmap.Allocated != 0 : entry.Kind(_geometry) == ClusterKind.Data;
            string what = isData ? "Data" : "Preallocated";
            _log.Corruption($"ERROR offset={entry.Host.Bytes:x}: {what} cluster is not properly aligned; "
                + "L2 entry corrupted.");
        }
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
        else if (entry.HasHost(_geometry))
        {
            _references.Add(entry.Host.Bytes, _geometry.ClusterBytes, ClusterUse.Data, times);
        }
    }

    private void AddToStatistics(L2Entry entry)
    {
        if (entry.Kind(_geometry) == ClusterKind.Compressed)
        {
            AllocatedClusters++;
            CompressedClusters++;
            FragmentedClusters++;
        }
        else if (entry.HasHost(_geometry))
        {
            AllocatedClusters++;
            if (_nextContiguous != 0 && entry.Host.Bytes != _nextContiguous)
                FragmentedClusters++;
            _nextContiguous = entry.Host.Bytes + _geometry.ClusterBytes;
        }
    }
}
