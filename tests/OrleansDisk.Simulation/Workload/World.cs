using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Check;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Simulation.Crash;
using OrleansDisk.Simulation.Host;
using OrleansDisk.Simulation.Model;

namespace OrleansDisk.Simulation.Workload;

/// <summary>What the operations of a run act on: an open image on a simulated host, and the model that it must agree with.</summary>
internal sealed partial class World(Shape shape, SimulatedHost host, StartImage start, FaultPlan faults, Random random)
{
    private const int MaxOpenAttempts = 4;
    private const int PaddingClusters = 1024;
    private static readonly CheckOptions s_fewFindings = new() { MaxKeptFindings = 5 };
    private Qcow2Image? _image;
    private SectorHolds _holds = new();
    private int _incarnation;
    private int _changesUnderWay;
    private int _readsUnderWay;
    private long _changedClusters;
    private long _clustersUnderWay;

    public Shape Shape => shape;

    /// <summary>The format version that the image has now; amending changes it.</summary>
    public int Version => Image.Header.Version;

    /// <summary>What may lie below the image.</summary>
    public BackingContents Backing => start.Backing;

    public SimulatedHost Host => host;

    public FaultPlan Faults => faults;

    /// <summary>Decides what the operation list leaves open, such as which writes survive a crash.</summary>
    public Random Random => random;

    public DiskModel Model { get; init; } = start.Model;

    /// <summary>How often the image has stopped.</summary>
    public int StopCount { get; private set; }

    /// <summary>How often the image has come back from a crash.</summary>
    public int Incarnation => _incarnation;

    public Qcow2Image Image => _image ?? throw new InvalidOperationException("the image is not open");

    public SimulatedDisk Disk => host[StartImage.Name];

    /// <summary>Cuts a range where the disk ends now; false when nothing is left.</summary>
    public bool TryClip(long offset, ref int bytes)
    {
        bytes = (int)Math.Clamp(VirtualBytes - offset, 0, bytes);
        return bytes > 0;
    }

    public long VirtualBytes => Model.SectorCount * (long)SectorContent.Bytes;

    /// <summary>Leaked clusters that crashes and faults have left.</summary>
    public long InheritedLeaks { get; set; }

    /// <summary>Called at each barrier of the image's file.</summary>
    public Action<SimulatedDisk>? AtBarrier { get; set; }

    /// <summary>
    /// Leaks that a crash may leave now: what changed since nothing was on its way can have left a cluster, its
    /// predecessor and their tables.
    /// </summary>
    public JudgeLimits Limits => new()
    {
        ImageName = StartImage.Name,
        OpenBacking = (name, _) => CrashView.Of(name, host[BackingContents.PlainNameOf(name)].Visible),
        Backing = start.Backing,
        ClusterBytes = shape.ClusterBytes,
        DataFile = shape.DataFile == DataFileKind.None ? null : (StartImage.DataName, StartImage.DataRegion),
        Stored = start.Stored,
        Secret = shape.Secret,
        MaxLeaks = InheritedLeaks + (4 * (_changedClusters + _clustersUnderWay)) + 16 + Model.Bitmaps.LeakLimit,
    };

    public async Task OpenAsync()
    {
        bool isDirty = await IsDirtyAsync();
        await OpenFileAsync();
        if (isDirty)
            InheritedLeaks = CheckFile().LeakCount; // opening it repaired it
    }

    private async Task OpenFileAsync()
    {
        Disk.AtBarrier = disk => AtBarrier?.Invoke(disk);
        for (int attempt = 1; ; attempt++)
        {
            string? struckBefore = faults.Struck;
            SimulatedFile file = host.Open(StartImage.Name, ImageAccess.Write, faults, shape.CanPunchHoles);
            file.Writing = RefuseFrozen;
            file.Events.IsCopying = () => _changesUnderWay > 0 && _readsUnderWay == 0;
            try
            {
                _image = await Qcow2Image.OpenAsync(file, Options());
                file.Events.Follow(_image.Map, _image.Header, TablesOf(_image).Contains);
                return;
            }
            catch (IOException) when (attempt < MaxOpenAttempts && faults.Struck != struckBefore)
            {
                await file.DisposeAsync();
            }
        }
    }

    private async Task<bool> IsDirtyAsync()
    {
        await using var view = CrashView.Of(StartImage.Name, Disk.Visible);
        return (await HeaderReader.ReadAsync(view)).Incompatible.HasFlag(IncompatibleFeatures.Dirty);
    }

    /// <summary>The image file as all programs see it, checked, with the refcounts that lie behind its end.</summary>
    public CheckReport CheckFile()
    {
        CheckReport? report = null;
        var scheduler = new SeededScheduler(new Random(0));
        scheduler.Run(async () => RefuseCorruption(await ImageCheck.RunAsync(CrashView.Of(StartImage.Name, Disk.Visible), s_fewFindings)));
        // Reserved clusters that were never written lie past the end of the file, where a check does not look.
        var padded = CrashView.Of(StartImage.Name, Disk.Visible, paddingBytes: (long)PaddingClusters << shape.ClusterBits);
        scheduler.Run(async () => report = await ImageCheck.RunAsync(padded, s_fewFindings));
        return report!;
    }

    /// <summary>What was lost before the run began.</summary>
    public async Task NoteStartAsync()
    {
        InheritedLeaks = CheckFile().LeakCount;
        foreach ((string name, byte[] disk) in await ReadSnapshotsAsync())
            Snapshots.Keep(name, disk);
    }

    /// <summary>Nothing is on its way: whatever leaks now was lost before.</summary>
    public void NoteSettled()
    {
        CheckReport report = CheckFile();
        if (report.LeakCount != InheritedLeaks && faults.Struck is null)
        {
            throw new SimulationFailure("I2", $"{report.LeakCount} clusters leak when settled, {InheritedLeaks} were lost before: "
                + string.Join("; ", report.Findings.Select(f => f.Message)));
        }
        InheritedLeaks = report.LeakCount;
        _changedClusters = 0;
    }

    public static void RefuseCorruption(CheckReport report)
    {
        if (report.CorruptionCount + report.CheckErrorCount > 0)
            throw new SimulationFailure("I2", $"corruption in the file: {string.Join("; ", report.Findings.Select(f => f.Message))}");
    }

    /// <summary>Whoever looks at a moment at which everything is settled sees only what was lost before.</summary>
    public void RefuseLeaks(CheckReport report)
    {
        if (report.LeakCount > InheritedLeaks && faults.Struck is null)
            throw new SimulationFailure("I2", $"{report.LeakCount} clusters leak, {InheritedLeaks} were lost before");
    }

    /// <summary>Waits until an operation on a range may begin.</summary>
    public async Task<SectorHolds.Hold> HoldAsync(long offset, long bytes)
    {
        int incarnation = _incarnation;
        SectorHolds.Hold hold = await _holds.TakeAsync(offset, bytes);
        if (incarnation != _incarnation)
            await new TaskCompletionSource().Task;
        return hold;
    }

    /// <summary>Runs a call on the image; it never ends if the process dies meanwhile.</summary>
    public async Task CallAsync(Func<Qcow2Image, ValueTask> call)
    {
        int incarnation = _incarnation;
        try
        {
            await call(Image);
        }
        catch (Exception) when (incarnation != _incarnation)
        {
            // It is the dead process that failed.
        }
        if (incarnation != _incarnation)
            await new TaskCompletionSource().Task;
    }

    /// <summary>Runs a call that changes sectors, and tells the model what became of it. A failure is told to the run.</summary>
    /// <returns>Whether it succeeded.</returns>
    public async Task<bool> ChangeAsync(DiskModel.Change change, long bytes, bool isDurable, Func<Qcow2Image, ValueTask> call)
    {
        bool succeeded = await TryChangeAsync(bytes, call);
        if (succeeded)
            change.Succeed(isDurable);
        else
            change.EndUncertain();
        return succeeded;
    }

    /// <summary>Runs a call that changes clusters: they count as possible leaks until nothing is on its way.</summary>
    public async Task<bool> TryChangeAsync(long bytes, Func<Qcow2Image, ValueTask> call)
    {
        long clusters = (bytes >> shape.ClusterBits) + 2;
        int incarnation = _incarnation;
        _clustersUnderWay += clusters;
        _changesUnderWay++;
        bool succeeded = await TryAsync(call);
        if (incarnation != _incarnation)
            return succeeded;
        _changesUnderWay--;
        _clustersUnderWay -= clusters;
        _changedClusters += clusters;
        return succeeded;
    }

    /// <summary>Reads a range and holds it against the model.</summary>
    public Task ReadAsync(long offset, int bytes)
    {
        byte[] data = new byte[bytes];
        return ReadAsync(offset, data, image => image.ReadAsync(offset, data));
    }

    /// <summary>Reads a range in some way and holds it against the model.</summary>
    public async Task ReadAsync(long offset, byte[] data, Func<Qcow2Image, ValueTask> read)
    {
        long[] from = Model.BeginRead(offset, data.Length);
        int incarnation = _incarnation;
        _readsUnderWay++;
        bool succeeded = await TryAsync(read);
        if (incarnation != _incarnation)
            return;
        _readsUnderWay--;
        if (succeeded)
            Model.EndRead(offset, data, from);
    }

    /// <summary>Runs a call that may fail when, and only when, a fault has struck.</summary>
    public async Task<bool> TryAsync(Func<Qcow2Image, ValueTask> call)
    {
        string? struckBefore = faults.Struck;
        Qcow2Image image = Image;
        try
        {
            await CallAsync(call);
            return true;
        }
        catch (IOException e)
        {
            if (faults.Struck is null || e is Qcow2CorruptException)
                throw new SimulationFailure("no fault", $"an operation failed: {e.Message}");
            // Who joined a load that was under way shares its failure, whenever it came.
            if (struckBefore is not null && !image.HasFailed && !ReferenceEquals(e, faults.Error))
                throw new SimulationFailure("W7", $"an operation that began after the fault ({faults.Struck}) failed on an image that goes on: {e.Message}");
            return false;
        }
    }

    /// <summary>Makes sure that sectors hold one known content; the caller holds them alone.</summary>
    /// <returns>Whether that could be had.</returns>
    public async Task<bool> PinAsync(IReadOnlyList<int> sectors)
    {
        byte[] data = new byte[SectorContent.Bytes];
        foreach (int sector in sectors)
        {
            if (Model.IsSettled(sector))
                continue;
            long[] from = Model.BeginRead(sector * 512L, data.Length);
            if (!await TryAsync(image => image.ReadAsync(sector * 512L, data)))
                return false;
            Model.EndRead(sector * 512L, data, from);
            Model.Pin(sector, data);
        }
        return !Image.HasFailed;
    }

    /// <summary>The process dies: its handles go, its memory goes, its writes stay.</summary>
    public async Task KillProcessAsync()
    {
        host.KillAll();
        await RestartAsync(isDurable: false);
    }

    /// <summary>The machine dies: any of the unflushed writes are lost, and one of the others may be torn.</summary>
    public async Task LosePowerAsync()
    {
        var writes = new UnflushedWrites(Disk);
        CrashState state = new StateSelection(1, random).Draw(writes);
        byte[] bytes = writes.Materialize(state);
        host.KillAll();
        StartImage.Install(shape, host, StartImage.Copy(Disk, bytes));
        await RestartAsync(isDurable: true);
    }

    /// <summary>The image has stopped: it is closed and opened again, or its process or its machine dies.</summary>
    public async Task RecoverAsync()
    {
        StopCount++;
        int way = random.Next(3);
        // After a failed flush the system shows bytes that will never be on stable storage. Who lets go of the file
        // sees to that; who is killed can't, and then only a restart tells the truth.
        if (way == 0 || (way == 2 && faults.Struck!.StartsWith("flush", StringComparison.Ordinal)))
        {
            await LosePowerAsync();
            return;
        }
        if (way == 1)
            await CloseStoppedAsync();
        await KillProcessAsync();
    }

    private async Task CloseStoppedAsync()
    {
        try
        {
            await Image.CloseAsync();
        }
        catch (Qcow2FailedException)
        {
            // It was its closing that failed, and says so to everyone.
        }
    }

    /// <summary>Opens what a crash left.</summary>
    public Task StartFromCrashAsync() => RestartAsync(isDurable: true);

    /// <summary>The disk through a handle that reads only, while nobody writes.</summary>
    public async Task ReadOnlyVisitAsync()
    {
        string? struckBefore = faults.Struck;
        SimulatedFile file = host.Open(StartImage.Name, ImageAccess.Read, new FaultPlan([]), shape.CanPunchHoles);
        try
        {
            await using Qcow2Image image = await Qcow2Image.OpenAsync(file, Options() with { Access = ImageAccess.Read });
            byte[] disk = new byte[image.VirtualBytes];
            long[] from = Model.BeginRead(0, disk.Length);
            await image.ReadAsync(0, disk);
            Model.EndRead(0, disk, from);
        }
        catch (IOException) when (faults.Struck != struckBefore)
        {
            // The fault struck a backing file.
            await file.DisposeAsync();
        }
    }

    private async Task RestartAsync(bool isDurable)
    {
        _incarnation++;
        _holds = new SectorHolds();
        (_changesUnderWay, _readsUnderWay) = (0, 0);
        CheckReport report = CheckFile();
        if (report.LeakCount > Limits.MaxLeaks)
            throw new SimulationFailure("I2", $"a crash leaked {report.LeakCount} clusters, at most {Limits.MaxLeaks} can be on their way");
        InheritedLeaks = report.LeakCount;
        // What stable storage says may be older than what the next owner sees.
        (_changedClusters, _clustersUnderWay) = (isDurable ? 0 : _changedClusters + _clustersUnderWay, 0);
        Snapshots.Restart(await ReadSnapshotsAsync(), isDurable);
        await OpenAsync();
        await JudgeBitmapsAsync();
        await JudgeKeysAsync(isDurable);
        byte[] disk = new byte[Image.VirtualBytes];
        while (!await TryAsync(image => image.ReadAsync(0, disk)))
        {
            // The fault struck just now, and strikes once.
        }
        Model.Restart(disk, isDurable);
    }

    /// <summary>Holds the bitmaps of an image that was just opened against the model, which learns from it what it can't know.</summary>
    public async Task JudgeBitmapsAsync()
    {
        while (!await TryAsync(image => new ValueTask(Model.Bitmaps.JudgeAsync(image, isSizeUnsure: Model.IsSizeUnsure))))
        {
            // The fault struck just now, and strikes once.
        }
        await Model.Bitmaps.AdoptAsync(Image);
    }

    private Qcow2OpenOptions Options() => new()
    {
        Access = ImageAccess.Write,
        L2CacheBytes = Math.Min(shape.ClusterBytes, ClusterGeometry.MaxL2SliceBytes) * shape.CachedTableCount,
        RefcountCacheBytes = (long)shape.ClusterBytes * shape.CachedTableCount,
        PassDiscard = shape.PassDiscard,
        KeepDiscardedClusters = shape.KeepsDiscarded,
        NotesAllZeroes = shape.NotesAllZeroes,
        OpenFile = OpenFile,
        RunBeside = RunLaterAsync,
        Secret = shape.Secret,
    };

    /// <summary>Work that the engine gives to other threads is done when the seed says so.</summary>
    private static async ValueTask RunLaterAsync(Action work)
    {
        await Task.Yield();
        work();
    }

    private IBlockFile OpenFile(string name, ImageAccess access)
    {
        if (name != StartImage.DataName)
            return host.OpenBacking(name, access);
        SimulatedFile file = host.Open(name, access, faults, shape.CanPunchHoles);
        file.Events.FollowData(() => _changesUnderWay > 0 && _readsUnderWay == 0);
        return file;
    }

    private void RefuseFrozen(long offset, int bytes)
    {
        if (start.FrozenSectors.Count == 0 || HasChangedSnapshots)
            return;
        (int first, int count) = DiskModel.SectorsOf(offset, bytes);
        for (int sector = first; sector < first + count; sector++)
        {
            if (start.FrozenSectors.Contains(sector))
                throw new SimulationFailure("I8", $"a write at {offset} into sector {sector} of the file, which belongs to a snapshot");
        }
    }

    /// <summary>L2 tables and refcount blocks that exist now.</summary>
    private HashSet<long> TablesOf(Qcow2Image image)
    {
        var tables = new HashSet<long>();
        for (long at = 0; at < Disk.Visible.Length; at += shape.ClusterBytes)
        {
            if (image.Map.Find(new Qcow2.Format.HostCluster(at >> shape.ClusterBits)) is "active L2 table" or "refcount block")
                tables.Add(at);
        }
        return tables;
    }
}
