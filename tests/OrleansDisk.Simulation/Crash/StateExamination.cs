using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Check;
using OrleansDisk.Qcow2.Crypto;
using OrleansDisk.Qcow2.Data;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Simulation.Host;
using OrleansDisk.Simulation.Model;

namespace OrleansDisk.Simulation.Crash;

/// <summary>
/// Opens one crash state for writing, checks it, and finds where each sector of the disk lies: all that depends on the
/// state's metadata alone.
/// </summary>
/// <param name="writes">The writes of the barrier.</param>
/// <param name="state">The state.</param>
/// <param name="model">What the disk may hold.</param>
/// <param name="limits">What else must hold.</param>
internal sealed class StateExamination(UnflushedWrites writes, CrashState state, DiskModel model, JudgeLimits limits)
{
    /// <summary>Sectors whose place in the file unflushed writes touch: guest sector, file sector.</summary>
    public List<(int Guest, int InFile)> Touched { get; } = [];

    /// <summary>The writes on which the examination's outcome depends.</summary>
    public int[] Deciding { get; private set; } = [];

    /// <summary>What lies below the image, as this state's header says.</summary>
    private string? _backingFile;

    /// <summary>The disk as it reads in this state.</summary>
    public byte[] Disk { get; private set; } = [];

    /// <summary>Its size.</summary>
    public int SectorCount => Disk.Length / SectorContent.Bytes;

    /// <exception cref="SimulationFailure">An invariant does not hold.</exception>
    public void Run()
    {
        try
        {
            new SeededScheduler(new Random(0)).Run(RunAsync);
        }
        catch (Exception e) when (e is IOException or ArgumentException or InvariantException)
        {
            throw new SimulationFailure("I1", $"a crash left an image that does not open: {e.Message}");
        }
    }

    private async Task RunAsync()
    {
        await CheckAsync();
        var view = new CrashView(limits.ImageName, writes, state);
        var options = new Qcow2OpenOptions { Access = ImageAccess.Write, OpenFile = OpenFile, RunBeside = RunNowAsync, Secret = limits.Secret };
        await using Qcow2Image image = await Qcow2Image.OpenAsync(view, options);
        _backingFile = image.Header.BackingFile;
        await FindDecidingAsync(view, image);
        await JudgeKeysAsync(image.Header);
        int sectors = (int)(image.VirtualBytes / SectorContent.Bytes);
        if (!model.MayHaveSectorCount(sectors))
            throw new SimulationFailure("I4", $"the disk has {sectors} sectors after a crash, not {model.SectorCount}");
        await model.Bitmaps.JudgeAsync(image, isSizeUnsure: model.IsSizeUnsure);
        if (model.Snapshots.Any)
        {
            model.Snapshots.Judge(await SnapshotReader.ReadAsync(
                () => new CrashView(limits.ImageName, writes, state) { IsReadOnly = true }, options));
        }
        Disk = new byte[image.VirtualBytes];
        await image.ReadAsync(0, Disk);
        for (long at = 0; at < Disk.Length;)
        {
            DiskExtent extent = await image.GetExtentAsync(at, Disk.Length - at);
            Judge(at, extent);
            at += extent.Bytes;
        }
    }

    private static ValueTask RunNowAsync(Action work)
    {
        work();
        return ValueTask.CompletedTask;
    }

    private IBlockFile OpenFile(string name, ImageAccess access) => limits.DataFile is { } data && name == data.Name
        ? new CrashView(name, writes, state) { Start = data.Region.Start, Bytes = data.Region.Bytes } : limits.OpenBacking(name, access);

    private async Task CheckAsync()
    {
        var view = new CrashView(limits.ImageName, writes, state) { IsReadOnly = true };
        CheckReport report = await ImageCheck.RunAsync(view, new CheckOptions { MaxKeptFindings = 5 });
        if (report.CorruptionCount + report.CheckErrorCount > 0)
            throw new SimulationFailure("I2", $"a crash left corruption: {Describe(report)}");
        if (report.LeakCount > limits.MaxLeaks)
            throw new SimulationFailure("I2", $"a crash leaked {report.LeakCount} clusters, at most {limits.MaxLeaks} can be on their way: {Describe(report)}");
    }

    /// <summary>Looks at the keys where a crash may have left them half changed.</summary>
    private async Task JudgeKeysAsync(Header header)
    {
        if (header.Encryption != EncryptionMethod.Luks)
            return;
        var place = EncryptionHeader.Of(header);
        (int first, int count) = DiskModel.SectorsOf(place.Start.Bytes, place.Bytes);
        if (!Enumerable.Range(first, count).Any(writes.Touches))
            return;
        await using var view = new CrashView(limits.ImageName, writes, state) { IsReadOnly = true };
        using LuksKeys keys = await KeyReader.ReadAsync(view, header);
        model.Keys.Judge(keys);
    }

    private static string Describe(CheckReport report) => string.Join("; ", report.Findings.Select(finding => finding.Message));

    private async Task FindDecidingAsync(CrashView view, Qcow2Image image)
    {
        var deciding = new SortedSet<int>();
        foreach ((long offset, long bytes) in await MetadataExtent.FindAsync(view, image.Header))
        {
            (int first, int count) = DiskModel.SectorsOf(offset, bytes);
            for (int sector = first; sector < first + count; sector++)
                deciding.UnionWith(writes.WritesOf(sector));
        }
        Deciding = [.. deciding];
    }

    /// <summary>Holds an extent's sectors against the model, and what the engine reads there against the file.</summary>
    private void Judge(long offset, DiskExtent extent)
    {
        for (long at = offset; at < offset + extent.Bytes; at += SectorContent.Bytes)
        {
            int sector = (int)(at / SectorContent.Bytes);
            long read = SectorContent.Parse(Disk.AsSpan((int)at, SectorContent.Bytes));
            long content = read;
            if (extent.HostOffset is { } host && extent.State == DiskExtentState.Data)
            {
                int inFile = (int)((host + (limits.DataFile?.Region.Start ?? 0) + at - offset) / SectorContent.Bytes);
                content = limits.Stored.ContentOf(writes, state, sector, inFile);
                if (writes.Touches(inFile))
                    Touched.Add((sector, inFile));
            }
            else if (!extent.IsCompressed)
            {
                content = extent.State == DiskExtentState.Unallocated ? limits.Backing.ContentOf(_backingFile, sector) : 0;
            }
            if (content != read)
            {
                throw new SimulationFailure("I1", $"sector {sector} reads {SectorContent.Describe(read)}, "
                    + $"but its place in the file ({extent.State}) says {SectorContent.Describe(content)}");
            }
            JudgeSector(sector, content);
        }
    }

    /// <exception cref="SimulationFailure">The content is none that the sector may have after a crash.</exception>
    public void JudgeSector(int sector, long content)
    {
        if (model.MayHoldAfterCrash(sector, content, SectorCount))
            return;
        string invariant = content == SectorContent.Poison || content < 0 ? "I6"
            : content == limits.Backing.ContentOf(_backingFile, sector) ? "I7" : "I4, I5";
        throw new SimulationFailure(invariant, $"sector {sector} holds {SectorContent.Describe(content)} after a crash; "
            + $"allowed: {model.DescribeAfterCrash(sector, SectorCount)}");
    }
}
