using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Qcow2.Check.Repair;

/// <summary>One repair, from its first look to the feature bits. docs/consistency.md, "Repair", has the order of its writes.</summary>
internal sealed class RepairRun(IBlockFile file, Header header, RepairKinds kinds, CheckLog log)
{
    /// <summary>How much longer a file may become so that it holds a refcount block that lies behind its end.</summary>
    private const long MaxExtensionBytes = 1L << 30;

    private readonly RepairWriter _writer = new(file);
    private Header _header = header;

    public async Task<CheckReport> RunAsync()
    {
        // An owner that died may have left writes in the page cache alone: they must not get lost behind what follows from them.
        await _writer.BarrierAsync();
        await ClearUnknownBitsAsync();
        SnapshotTableRepair? snapshots = null;
        if (RepairsErrors)
        {
            snapshots = new SnapshotTableRepair(file, _header, _writer, log);
            _header = await snapshots.ReadAsync();
        }
        var examination = new Examination(file, _header, log, repairsZeroClusters: RepairsErrors);
        await examination.CountAsync(snapshots?.Table, RepairsErrors ? offset => ExtendAsync(examination, offset) : null);
        await RepairZeroClustersAsync(examination);
        examination = await RepairRefcountsAsync(examination, snapshots?.Table);
        await examination.Refcounts.ReportOverlapsAsync();
        await RepairCopiedFlagsAsync(examination);
        if (snapshots is { IsDamaged: true })
            await ReplaceSnapshotTableAsync(examination, snapshots);
        CheckReport report = examination.Report();
        if (report is { CorruptionCount: 0, CheckErrorCount: 0 })
            await ClearBitsAsync();
        return report;
    }

    private bool RepairsErrors => kinds.HasFlag(RepairKinds.Errors);

    /// <summary>Makes the file hold a refcount block that lies behind its end, as zeros.</summary>
    private async ValueTask<bool> ExtendAsync(Examination examination, HostOffset block)
    {
        long end = block.Bytes < 0 || block.Bytes > long.MaxValue - _header.Geometry.ClusterBytes ? -1 : block.Bytes + _header.Geometry.ClusterBytes;
        string? reason = end < 0 ? "Invalid argument" : end > file.LengthBytes + MaxExtensionBytes ? "File too large" : null;
        if (reason is null)
        {
            try
            {
                await file.SetLengthAsync(end);
                examination.References.Extend(end);
                return true;
            }
            catch (BlockFileException e)
            {
                reason = e.Message;
            }
        }
        log.Progress($"ERROR could not resize image: {reason}");
        return false;
    }

    /// <summary>Entries that keep space where none can be say just zero. No entry leads to that space, so it can go next.</summary>
    private async ValueTask RepairZeroClustersAsync(Examination examination)
    {
        ClusterGeometry geometry = _header.Geometry;
        var reader = new TableReader(file);
        foreach (long table in examination.TablesToRepair)
        {
            if (!examination.References.IsOnly(ClusterUse.L2Table, geometry.ClusterOf(new HostOffset(table)).Index))
            {
                log.CheckError("ERROR: Overlap check failed");
                continue;
            }
            long bytes = reader.ReadableBytes(table, geometry.ClusterBytes);
            for (long at = 0; at < bytes;)
            {
                Memory<byte> window = await reader.ReadAsync(table + at, bytes - at);
                if (ClearUnalignedZeroes(window.Span))
                    await _writer.WriteAsync(table + at, window);
                at += window.Length;
            }
        }
        if (examination.TablesToRepair.Count > 0)
            await _writer.BarrierAsync();
    }

    private bool ClearUnalignedZeroes(Span<byte> window)
    {
        ClusterGeometry geometry = _header.Geometry;
        bool changed = false;
        for (int index = 0; index < window.Length / geometry.L2EntryBytes; index++)
        {
            var entry = L2Entry.Read(window, index, geometry);
            if (!entry.IsUnalignedZero(geometry))
                continue;
            L2Entry zero = geometry.HasSubclusters ? new L2Entry(0, entry.Bitmap) : L2Entry.ZeroPlain(geometry);
            zero.WriteTo(window, index, geometry);
            changed = true;
        }
        return changed;
    }

    /// <summary>Compares refcounts, and puts them right where they are stored, or in a new structure.</summary>
    /// <returns>The examination of what is stored afterwards.</returns>
    private async Task<Examination> RepairRefcountsAsync(Examination examination, SnapshotTable? snapshots)
    {
        CheckCounts before = log.Counts;
        await examination.Refcounts.CompareAsync(RepairKinds.None, writer: null);
        if (examination.Refcounts.NeedsRebuild)
        {
            if (!RepairsErrors)
            {
                log.CheckError("ERROR need to rebuild refcount structures");
                throw new RepairFailedException("repairing leaks is not enough: the refcounts have to be rebuilt, use -r all");
            }
            return await RebuildAsync(examination, snapshots);
        }
        if (log.Counts.Leaks + log.Counts.Corruptions > 0)
        {
            log.Counts = before;
            await examination.Refcounts.CompareAsync(kinds, _writer);
            await _writer.BarrierAsync();
        }
        return examination;
    }

    private async Task<Examination> RebuildAsync(Examination damaged, SnapshotTable? snapshots)
    {
        log.Progress("Rebuilding refcount structure");
        await new RefcountRebuild(file, _header, damaged, _writer).RunAsync();
        CheckCounts found = log.Counts;
        log.Counts = default; // what is still wrong is found again
        Examination rebuilt = await CountAgainAsync(log, snapshots);
        log.CorruptionsFixed += Math.Max(found.Corruptions - log.Counts.Corruptions, 0);
        long leaksFixed = log.LeaksFixed + found.Leaks;
        // What was only the old structure is leaked now.
        await rebuilt.Refcounts.CompareAsync(kinds & RepairKinds.Leaks, _writer);
        await _writer.BarrierAsync();
        log.LeaksFixed = leaksFixed;
        return rebuilt;
    }

    private async Task RepairCopiedFlagsAsync(Examination examination)
    {
        bool repairs = RepairsErrors || (kinds.HasFlag(RepairKinds.Leaks) && log.Counts == default);
        await examination.CheckCopiedFlagsAsync(repairs ? _writer : null);
        await _writer.BarrierAsync();
    }

    /// <summary>Writes the snapshot table anew, with refcounts that count its new place, and lets the old place go.</summary>
    private async Task ReplaceSnapshotTableAsync(Examination examination, SnapshotTableRepair snapshots)
    {
        await new RefcountRebuild(file, _header, examination, _writer).RunAsync(snapshots.Encode(), snapshots.Table.Entries.Count);
        var silent = new CheckLog(new CheckOptions { MaxKeptFindings = 0 });
        Examination rebuilt = await CountAgainAsync(silent, snapshots: null);
        await rebuilt.Refcounts.CompareAsync(RepairKinds.Leaks, _writer);
        await _writer.BarrierAsync();
        log.CorruptionsFixed += snapshots.DamageCount;
    }

    private async Task<Examination> CountAgainAsync(CheckLog findings, SnapshotTable? snapshots)
    {
        _header = await HeaderReader.ReadForCheckAsync(file);
        var examination = new Examination(file, _header, findings);
        await examination.CountAsync(snapshots);
        return examination;
    }

    /// <summary>What is written from now on may make false what autoclear bits stand for that nobody here keeps true.</summary>
    private async ValueTask ClearUnknownBitsAsync()
    {
        AutoclearFeatures known = _header.Autoclear & FeatureCheck.KnownAutoclear;
        if (known == _header.Autoclear)
            return;
        byte[] field = new byte[sizeof(ulong)];
        HeaderField.WriteUInt64(field, 0, (ulong)known);
        await _writer.WriteHeaderAsync(HeaderField.Autoclear, field);
        _header = _header with { Autoclear = known };
    }

    private async ValueTask ClearBitsAsync()
    {
        const IncompatibleFeatures bits = IncompatibleFeatures.Dirty | IncompatibleFeatures.Corrupt;
        if ((_header.Incompatible & bits) != 0)
            await _writer.WriteFeaturesAsync(_header.Incompatible & ~bits);
    }
}
