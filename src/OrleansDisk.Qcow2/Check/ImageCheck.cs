using System.Buffers.Binary;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Qcow2.Check;

/// <summary>
/// Judges an image by its bytes alone: counts every reference to every host cluster, compares the counts with the
/// stored refcounts, and tests copied flags, reserved bits, alignment and overlaps. Shares only the codecs with the
/// engine, so that it can judge what the engine wrote.
/// </summary>
public static class ImageCheck
{
    /// <summary>Checks an image without changing it. Memory grows with what is referenced, not with what is claimed.</summary>
    /// <exception cref="Qcow2FormatException">The header can't be read, so there is nothing to check.</exception>
    /// <exception cref="BlockFileException">The file can't be read.</exception>
    public static async Task<CheckReport> RunAsync(IBlockFile file, CheckOptions options)
    {
        Header header = await HeaderReader.ReadAsync(file);
        var log = new CheckLog(options);
        var references = new ReferenceCounts(header.Geometry, file.LengthBytes, log);
        var mapping = new MappingCheck(file, header, references, log);
        var snapshots = new SnapshotTableCheck(file, header, references, mapping, log);
        var refcounts = new RefcountCheck(file, header, references, log);

        IReadOnlyList<SnapshotEntry> entries = await snapshots.ReadAsync();
        if (header.Geometry.HasExternalData && entries.Count > 0)
            log.Corruption($"ERROR {entries.Count} snapshots in image with data file");
        references.Add(0, header.Geometry.ClusterBytes, ClusterUse.Header);
        await mapping.CountL1TableAsync(header.L1Table.Bytes, header.L1EntryCount, isActive: true);
        await snapshots.CountSnapshotsAsync(entries);
        await mapping.CountRepeatsAsync();
        snapshots.CountTable();
        CountEncryptionHeader(header, references);
        await new BitmapCheck(file, header, references, log).CountAsync();
        await refcounts.CountTableAsync();
        await refcounts.CompareAsync();
        await new CopiedFlagCheck(file, header, refcounts, log).RunAsync();
        return new CheckReport
        {
            Header = header,
            Findings = log.Kept,
            LeakCount = log.LeakCount,
            CorruptionCount = log.CorruptionCount,
            CheckErrorCount = log.CheckErrorCount,
            TotalClusters = header.Geometry.ClusterCount(header.DiskBytes),
            AllocatedClusters = mapping.AllocatedClusters,
            FragmentedClusters = mapping.FragmentedClusters,
            CompressedClusters = mapping.CompressedClusters,
            ImageEndOffset = refcounts.ImageEndOffset,
        };
    }

    private static void CountEncryptionHeader(Header header, ReferenceCounts references)
    {
        if (header.Find(HeaderExtensionType.Encryption) is { Data.Length: >= 16 } extension)
        {
            ulong offset = BinaryPrimitives.ReadUInt64BigEndian(extension.Data);
            ulong bytes = BinaryPrimitives.ReadUInt64BigEndian(extension.Data.AsSpan(8));
            references.Add((long)Math.Min(offset, long.MaxValue), (long)Math.Min(bytes, long.MaxValue),
                ClusterUse.EncryptionHeader);
        }
    }
}
