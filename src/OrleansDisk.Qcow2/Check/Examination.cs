using System.Buffers.Binary;
using OrleansDisk.Qcow2.Check.Repair;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Qcow2.Check;

/// <summary>
/// One look at an image's metadata: count what is referenced, compare that with what is stored, test copied flags. A
/// repair comes in between.
/// </summary>
internal sealed class Examination
{
    private readonly IBlockFile _file;
    private readonly Header _header;
    private readonly CheckLog _log;
    private readonly MappingCheck _mapping;
    private readonly SnapshotTableCheck _snapshots;

    /// <param name="file">The image.</param>
    /// <param name="header">Its header.</param>
    /// <param name="log">Takes the findings.</param>
    /// <param name="repairsZeroClusters">See <see cref="MappingCheck.RepairsZeroClusters"/>.</param>
    public Examination(IBlockFile file, Header header, CheckLog log, bool repairsZeroClusters = false)
    {
        (_file, _header, _log) = (file, header, log);
        References = new ReferenceCounts(header.Geometry, file.LengthBytes, log);
        _mapping = new MappingCheck(file, header, References, log) { RepairsZeroClusters = repairsZeroClusters };
        _snapshots = new SnapshotTableCheck(file, header, References, _mapping, log);
        Refcounts = new RefcountCheck(file, header, References, log);
    }

    public ReferenceCounts References { get; }

    public RefcountCheck Refcounts { get; }

    /// <summary>L2 tables whose unaligned zero clusters are to be repaired.</summary>
    public IReadOnlyList<long> TablesToRepair => _mapping.TablesToRepair;

    /// <summary>Counts every reference to every host cluster.</summary>
    /// <param name="snapshots">The snapshot table as a repair has read it, or null.</param>
    /// <param name="extend">See <see cref="RefcountCheck.CountTableAsync"/>.</param>
    public async Task CountAsync(SnapshotTable? snapshots = null, Func<HostOffset, ValueTask<bool>>? extend = null)
    {
        snapshots ??= await _snapshots.ReadAsync();
        if (_header.Geometry.HasExternalData && snapshots.Entries.Count > 0)
            _log.Corruption($"ERROR {snapshots.Entries.Count} snapshots in image with data file");
        References.Add(0, _header.Geometry.ClusterBytes, ClusterUse.Header);
        await _mapping.CountL1TableAsync(_header.L1Table.Bytes, _header.L1EntryCount, isActive: true);
        await _snapshots.CountSnapshotsAsync(snapshots.Entries);
        await _mapping.CountRepeatsAsync();
        References.Add(_header.SnapshotTable.Bytes, snapshots.TableBytes, ClusterUse.SnapshotTable);
        CountEncryptionHeader();
        await new BitmapCheck(_file, _header, References, _log).CountAsync();
        await Refcounts.CountTableAsync(extend);
    }

    /// <summary>Tests the copied flags against the refcounts that are stored now.</summary>
    /// <param name="writer">Puts them right, or null: they are reported.</param>
    public async Task CheckCopiedFlagsAsync(RepairWriter? writer = null)
    {
        // Where every flag is set, every owner is the only one and every refcount is right, nothing is left to look at.
        bool areAllRight = !_mapping.HasUncopied && References.HasSingleOwnersOnly && Refcounts.IsRight;
        if (!areAllRight)
            await new CopiedFlagCheck(_file, _header, References, Refcounts, _log).RunAsync(writer);
    }

    public CheckReport Report() => new()
    {
        Header = _header,
        Findings = _log.Kept,
        LeakCount = _log.Counts.Leaks,
        CorruptionCount = _log.Counts.Corruptions,
        CheckErrorCount = _log.Counts.CheckErrors,
        TotalClusters = _header.Geometry.ClusterCount(_header.DiskBytes),
        AllocatedClusters = _mapping.AllocatedClusters,
        FragmentedClusters = _mapping.FragmentedClusters,
        CompressedClusters = _mapping.CompressedClusters,
        ImageEndOffset = Refcounts.ImageEndOffset,
    };

    private void CountEncryptionHeader()
    {
        if (_header.Find(HeaderExtensionType.Encryption) is { Data.Length: >= 16 } extension)
        {
            ulong offset = BinaryPrimitives.ReadUInt64BigEndian(extension.Data);
            ulong bytes = BinaryPrimitives.ReadUInt64BigEndian(extension.Data.AsSpan(8));
            References.Add((long)Math.Min(offset, long.MaxValue), (long)Math.Min(bytes, long.MaxValue), ClusterUse.EncryptionHeader);
        }
    }
}
