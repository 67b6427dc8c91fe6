using OrleansDisk.Qcow2.Bitmaps;
using OrleansDisk.Qcow2.Concurrency;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Metadata;

namespace OrleansDisk.Qcow2.Data;

/// <summary>
/// Lets one session read and overwrite the disk on its own thread, without a turn of the image, wherever the mapping is
/// in the cache and no change of it is needed. Everything else is a turn's. The image takes the lease back when it needs
/// to be alone: then every call returns false. A lease is used by one thread at a time; it takes no locks, and a call
/// allocates nothing.
/// </summary>
/// <remarks>
/// The thread enters an epoch, looks at the very tables that turns change, does its I/O, and leaves. The image gives a
/// host cluster a new use only when everyone has left the epoch in which its last mapping ended: docs/consistency.md, W5.
/// </remarks>
public sealed class MappingLease : IDisposable
{
    /// <summary>In place of a host offset: the cluster reads as zeros.</summary>
    private const long Zeros = -1;

    /// <summary>In place of a host offset: only a turn can say.</summary>
    private const long Unknown = -2;

    private readonly ImageMetadata _metadata;
    private readonly GuestData _data;
    private readonly GuestReader _reader;
    private readonly ClusterGeometry _geometry;
    private readonly PublishedSlices _tables;
    private readonly LeaseEpochs _epochs;
    private readonly LeaseSlot _slot;
    private readonly long _writeUnitMask;

    /// <summary>Whether every transfer waits for the disk: a session's thread is to go on meanwhile.</summary>
    private readonly bool _leavesAllToTurns;
    private readonly DirtyTracking _tracking;

    internal MappingLease(ImageMetadata metadata, GuestData data, GuestReader reader, DirtyTracking tracking)
    {
        _tracking = tracking;
        (_metadata, _data, _reader, _geometry) = (metadata, data, reader, metadata.Geometry);
        (_tables, _epochs) = (metadata.Published, metadata.Gate.Leases);
        _writeUnitMask = data.WriteUnitBytes - 1;
        _leavesAllToTurns = metadata.DataFile.IsDirect;
        _slot = _epochs.Add();
    }

    /// <summary>Fills the buffer from a range of the disk.</summary>
    /// <param name="offset">First byte.</param>
    /// <param name="buffer">Where the bytes go.</param>
    /// <param name="mustBeData">
    /// Refuses a range that reads as zeros in part: for who would rather tell a client of holes.
    /// </param>
    /// <returns>False if a turn has to do it; the buffer then holds anything.</returns>
    /// <exception cref="Io.BlockFileException">The file can't be read.</exception>
    public bool TryRead(long offset, Span<byte> buffer, bool mustBeData = false)
    {
        if (_leavesAllToTurns || !_epochs.TryEnter(_slot))
            return false;
        try
        {
            return IsInside(offset, buffer.Length) && ReadRuns(new GuestOffset(offset), buffer, mustBeData);
        }
        finally
        {
            _epochs.Leave(_slot);
        }
    }

    /// <summary>Writes into a range of the disk. Like every write it is on stable storage after the next flush.</summary>
    /// <param name="offset">First byte.</param>
    /// <param name="data">The bytes.</param>
    /// <returns>False if a turn has to do it, all of it: some of these bytes may have been written.</returns>
    /// <exception cref="Io.BlockFileException">The file can't be written.</exception>
    public bool TryWrite(long offset, ReadOnlySpan<byte> data)
    {
        if (_leavesAllToTurns || !_epochs.TryEnter(_slot))
            return false;
        try
        {
            return IsInside(offset, data.Length) && ((offset | (uint)data.Length) & _writeUnitMask) == 0 && WriteRuns(new GuestOffset(offset), data);
        }
        finally
        {
            _epochs.Leave(_slot);
        }
    }

    /// <summary>Ends the lease; its session calls it when it makes no calls any more.</summary>
    public void Dispose() => _slot.Close();

    private bool IsInside(long offset, int bytes) => offset >= 0 && offset <= _metadata.Header.DiskBytes - bytes;

    private bool ReadRuns(GuestOffset offset, Span<byte> buffer, bool mustBeData)
    {
        while (buffer.Length > 0)
        {
            long host = FindReadable(offset);
            if (host == Unknown || (host == Zeros && mustBeData))
                return false;
            int bytes = BytesToSubclusterEnd(offset, buffer.Length);
            while (bytes < buffer.Length && FindReadable(offset + bytes) == (host == Zeros ? Zeros : host + bytes))
                bytes += Math.Min(_geometry.SubclusterBytes, buffer.Length - bytes);
            if (host == Zeros)
                buffer[..bytes].Clear();
            else if (!_data.TryRead(offset, new HostOffset(host), buffer[..bytes]))
                return false;
            offset += bytes;
            buffer = buffer[bytes..];
        }
        return true;
    }

    private bool WriteRuns(GuestOffset offset, ReadOnlySpan<byte> data)
    {
        long generation = _metadata.Map.Generation;
        while (data.Length > 0)
        {
            long host = FindWritable(offset, generation);
            if (host == Unknown)
                return false;
            int bytes = BytesToSubclusterEnd(offset, data.Length);
            while (bytes < data.Length && FindWritable(offset + bytes, generation) == host + bytes)
                bytes += Math.Min(_geometry.SubclusterBytes, data.Length - bytes);
            _tracking.NoteChange(offset.Bytes, bytes);
            try
            {
                _data.Write(offset, new HostOffset(host), data[..bytes]);
            }
            finally
            {
                // Inside the epoch: who has waited for this session to leave knows of all that it wrote.
                _metadata.Order.NoteDataWritten();
            }
            offset += bytes;
            data = data[bytes..];
        }
        return true;
    }

    /// <summary>The host offset of a guest offset, <see cref="Zeros"/> or <see cref="Unknown"/>.</summary>
    private long FindReadable(GuestOffset offset)
    {
        GuestCluster cluster = _geometry.ClusterOf(offset);
        if (_tables.Find(_geometry.L2Slice(cluster)) is not { } table)
            return Unknown;
        table.NoteUsed();
        L2Entry entry = table.ReadL2Entry(_geometry.L2SliceIndex(cluster), _geometry);
        ClusterKind kind = entry.KindAt(_geometry.SubclusterOf(offset), _geometry);
        if (!IsPlaceValid(entry, cluster))
            return Unknown;
        return kind switch
        {
            ClusterKind.Data => entry.Host.Bytes + _geometry.OffsetInCluster(offset),
            ClusterKind.ZeroPlain or ClusterKind.ZeroAllocated when _metadata.Header.Version >= 3 => Zeros,
            ClusterKind.Unallocated when !_reader.ShowsBacking(offset) => Zeros,
            _ => Unknown,
        };
    }

    /// <summary>The host offset at which a guest offset may be written in place, or <see cref="Unknown"/>.</summary>
    private long FindWritable(GuestOffset offset, long generation)
    {
        GuestCluster cluster = _geometry.ClusterOf(offset);
        if (_tables.Find(_geometry.L2Slice(cluster)) is not { } table)
            return Unknown;
        int index = _geometry.L2SliceIndex(cluster);
        table.NoteUsed();
        if (!table.IsWritable(index, generation)) // before the entry: see there
            return Unknown;
        L2Entry entry = table.ReadL2Entry(index, _geometry);
        return entry.IsCopied && entry.KindAt(_geometry.SubclusterOf(offset), _geometry) == ClusterKind.Data
            ? entry.Host.Bytes + _geometry.OffsetInCluster(offset) : Unknown;
    }

    /// <summary>A cluster is aligned, and in an external data file it lies at its guest offset; a turn finds the damage.</summary>
    private bool IsPlaceValid(L2Entry entry, GuestCluster cluster) => _geometry.IsAligned(entry.Host.Bytes)
        && (!_geometry.HasExternalData || !entry.HasHost(_geometry) || entry.Host.Bytes == _geometry.OffsetOf(cluster).Bytes);

    private int BytesToSubclusterEnd(GuestOffset offset, int limit) =>
        Math.Min(_geometry.SubclusterBytes - (int)(offset.Bytes & (_geometry.SubclusterBytes - 1)), limit);
}
