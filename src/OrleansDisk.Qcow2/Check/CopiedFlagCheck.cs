using System.Buffers.Binary;
using OrleansDisk.Qcow2.Check.Repair;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Qcow2.Check;

/// <summary>The copied flag of the active tables says exactly whether the stored refcount is one.</summary>
internal sealed class CopiedFlagCheck(IBlockFile file, Header header, ReferenceCounts references, RefcountCheck refcounts, CheckLog log)
{
    private readonly ClusterGeometry _geometry = header.Geometry;
    private readonly TableReader _l1Reader = new(file);
    private readonly TableReader _l2Reader = new(file);
    private readonly HashSet<long> _scanned = [];

    /// <summary>Examines every entry.</summary>
    /// <param name="writer">Puts flags right, or null: they are reported.</param>
    public async Task RunAsync(RepairWriter? writer)
    {
        long offset = header.L1Table.Bytes;
        long bytes = _l1Reader.ReadableBytes(offset, (long)header.L1EntryCount * sizeof(ulong));
        for (long at = 0; at < bytes;)
        {
            Memory<byte> window = await _l1Reader.ReadAsync(offset + at, bytes - at);
            bool changed = false;
            for (int entry = 0; entry + sizeof(ulong) <= window.Length; entry += sizeof(ulong))
            {
                var l1Entry = new L1Entry(BinaryPrimitives.ReadUInt64BigEndian(window.Span[entry..]));
                if (!l1Entry.IsAllocated || await CheckL1EntryAsync((at + entry) / sizeof(ulong), l1Entry, writer))
                    continue;
                BinaryPrimitives.WriteUInt64BigEndian(window.Span[entry..], l1Entry.WithCopied(!l1Entry.IsCopied).Raw);
                changed = true;
            }
            if (changed)
                await WriteAsync(writer!, ClusterUse.L1Table, offset + at, window);
            at += window.Length;
        }
    }

    /// <summary>False when the entry's flag is to be changed.</summary>
    private async ValueTask<bool> CheckL1EntryAsync(long index, L1Entry entry, RepairWriter? writer)
    {
        ulong refcount = await refcounts.GetRefcountAsync(_geometry.ClusterOf(entry.L2Table).Index);
        bool isRight = (refcount == 1) == entry.IsCopied;
        if (!isRight)
            log.Damage(writer is not null, $"OFLAG_COPIED L2 cluster: l1_index={index} l1_entry={entry.Raw:x} refcount={refcount}");
        long table = entry.L2Table.Bytes;
        if (_geometry.IsAligned(table) && _scanned.Add(table))
            await CheckL2TableAsync(table, writer);
        return isRight || writer is null;
    }

    private async ValueTask CheckL2TableAsync(long table, RepairWriter? writer)
    {
        long bytes = _l2Reader.ReadableBytes(table, _geometry.ClusterBytes);
        for (long at = 0; at < bytes;)
        {
            Memory<byte> window = await _l2Reader.ReadAsync(table + at, bytes - at);
            bool changed = false;
            for (int index = 0; index < window.Length / _geometry.L2EntryBytes; index++)
            {
                var entry = L2Entry.Read(window.Span, index, _geometry);
                if (!entry.HasHost(_geometry) || await IsRightAsync(entry, writer) || writer is null)
                    continue;
                entry.WithCopied(!entry.IsCopied).WriteTo(window.Span, index, _geometry);
                changed = true;
            }
            if (changed)
                await WriteAsync(writer!, ClusterUse.L2Table, table + at, window);
            at += window.Length;
        }
    }

    private async ValueTask<bool> IsRightAsync(L2Entry entry, RepairWriter? writer)
    {
        // Clusters of an external data file have no refcounts and always one reference.
        ulong refcount = _geometry.HasExternalData ? 1 : await refcounts.GetRefcountAsync(_geometry.ClusterOf(entry.Host).Index);
        bool isRight = (refcount == 1) == entry.IsCopied;
        if (!isRight)
            log.Damage(writer is not null, $"OFLAG_COPIED data cluster: l2_entry={entry.Raw:x} refcount={refcount}");
        return isRight;
    }

    /// <summary>Writes a part of a table back, unless that would change something else, too.</summary>
    private async ValueTask WriteAsync(RepairWriter writer, ClusterUse use, long offset, ReadOnlyMemory<byte> part)
    {
        long last = offset + part.Length - 1;
        for (long cluster = offset >> _geometry.ClusterBits; cluster <= last >> _geometry.ClusterBits; cluster++)
        {
            if (references.IsOnly(use, cluster))
                continue;
            log.CheckError("ERROR: Could not write L2 table; metadata overlap check failed: Input/output error");
            return;
        }
        await writer.WriteAsync(offset, part);
    }
}
