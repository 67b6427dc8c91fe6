using System.Buffers.Binary;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Qcow2.Check;

/// <summary>The copied flag of the active tables says exactly whether the stored refcount is one.</summary>
internal sealed class CopiedFlagCheck(IBlockFile file, Header header, RefcountCheck refcounts, CheckLog log)
{
    private readonly ClusterGeometry _geometry = header.Geometry;
    private readonly TableReader _l1Reader = new(file);
    private readonly TableReader _l2Reader = new(file);
    private readonly HashSet<long> _scanned = [];

    public async Task RunAsync()
    {
        long offset = header.L1Table.Bytes;
        long bytes = _l1Reader.ReadableBytes(offset, (long)header.L1EntryCount * sizeof(ulong));
        for (long at = 0; at < bytes;)
        {
            ReadOnlyMemory<byte> window = await _l1Reader.ReadAsync(offset + at, bytes - at);
            for (int entry = 0; entry + sizeof(ulong) <= window.Length; entry += sizeof(ulong))
            {
                var l1Entry = new L1Entry(BinaryPrimitives.ReadUInt64BigEndian(window.Span[entry..]));
                if (l1Entry.IsAllocated)
                    await CheckL1EntryAsync((at + entry) / sizeof(ulong), l1Entry);
            }
            at += window.Length;
        }
    }

    private async ValueTask CheckL1EntryAsync(long index, L1Entry entry)
    {
        ulong refcount = await refcounts.GetRefcountAsync(_geometry.ClusterOf(entry.L2Table).Index);
        if ((refcount == 1) != entry.IsCopied)
            log.Corruption($"ERROR OFLAG_COPIED L2 cluster: l1_index={index} l1_entry={entry.Raw:x} refcount={refcount}");
        long table = entry.L2Table.Bytes;
        if (!_geometry.IsAligned(table) || !_scanned.Add(table))
            return;
        long bytes = _l2Reader.ReadableBytes(table, _geometry.ClusterBytes);
        for (long at = 0; at < bytes;)
        {
            ReadOnlyMemory<byte> window = await _l2Reader.ReadAsync(table + at, bytes - at);
            for (int entryIndex = 0; entryIndex < window.Length / _geometry.L2EntryBytes; entryIndex++)
                await CheckL2EntryAsync(L2Entry.Read(window.Span, entryIndex, _geometry));
            at += window.Length;
        }
    }

    private async ValueTask CheckL2EntryAsync(L2Entry entry)
    {
        if (!entry.HasHost(_geometry))
            return;
        // Clusters of an external data file have no refcounts and always one reference.
        ulong refcount = _geometry.HasExternalData ? 1 : await refcounts.GetRefcountAsync(_geometry.ClusterOf(entry.Host).Index);
        if ((refcount == 1) != entry.IsCopied)
            log.Corruption($"ERROR OFLAG_COPIED data cluster: l2_entry={entry.Raw:x} refcount={refcount}");
    }
}
