using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Simulation.Model;

namespace OrleansDisk.Simulation.Host;

/// <summary>A machine with files and the locks on them (<see cref="ImageLock"/> as the kernel keeps them).</summary>
/// <param name="scheduler">Gives turns to what runs here; null when operations end at once.</param>
/// <param name="random">Decides what the scheduler does not.</param>
internal sealed class SimulatedHost(SeededScheduler? scheduler, Random random)
{
    private readonly Dictionary<string, SimulatedDisk> _disks = [];
    private readonly Dictionary<string, FileRegion> _regions = [];
    private readonly List<SimulatedFile> _open = [];
    private long _lastGeneration;

    public Random Random => random;

    public Trace Trace { get; } = new();

    /// <summary>What happens to reads of backing files.</summary>
    public FaultPlan BackingFaults { get; set; } = new([]);

    /// <summary>Whether locks are kept; without them nothing but luck keeps two owners apart.</summary>
    public bool KeepsLocks { get; init; } = true;

    public SimulatedDisk this[string name]
    {
        get => _disks[name];
        set => _disks[name] = value;
    }

    /// <summary>
    /// Puts two files into one disk, one behind the other, so that a crash state is one of both. Each is flushed by itself.
    /// </summary>
    public void Join(SimulatedDisk disk, string first, string second, long secondStart, long secondBytes)
    {
        (_disks[first], _disks[second]) = (disk, disk);
        _regions[first] = new FileRegion(0, secondStart);
        _regions[second] = new FileRegion(secondStart, secondBytes);
    }

    /// <summary>Shares another host's files, but one: nobody writes them.</summary>
    public void TakeBackingOf(SimulatedHost other, string except)
    {
        foreach ((string name, SimulatedDisk disk) in other._disks)
        {
            if (name != except)
                _disks[name] = disk;
        }
    }

    /// <summary>Writes all files into a folder, as programs see them.</summary>
    public void SaveTo(string folder)
    {
        foreach ((string name, SimulatedDisk disk) in _disks)
            File.WriteAllBytes(Path.Combine(folder, name), disk.Visible.Bytes);
    }

    /// <summary>Shows a disk at the moment with the most crash states to whom it may concern.</summary>
    public void AtBarrier(SimulatedDisk disk)
    {
        try
        {
            disk.AtBarrier?.Invoke(disk);
        }
        catch (SimulationFailure e)
        {
            scheduler?.Fail(e);
            throw;
        }
    }

    /// <summary>A failure that ends the run, though the engine may catch it.</summary>
    public SimulationFailure Failed(string invariant, string what)
    {
        var failure = new SimulationFailure(invariant, what);
        scheduler?.Fail(failure);
        return failure;
    }

    public bool Has(string name) => _disks.ContainsKey(name);

    /// <summary>Opens a file for reading, as the engine opens backing files.</summary>
    public IBlockFile OpenBacking(string name, ImageAccess access) =>
        Open(BackingContents.PlainNameOf(name), access, BackingFaults, canPunchHoles: true);

    /// <exception cref="ImageLockedException">Someone holds what excludes the access.</exception>
    public SimulatedFile Open(string name, ImageAccess access, FaultPlan faults, bool canPunchHoles)
    {
        if (!_disks.TryGetValue(name, out SimulatedDisk? disk))
            throw new Qcow2Exception($"Could not open '{name}': No such file or directory");
        if (KeepsLocks && _open.Exists(other => other.Name == name && Excludes(other.Access, access)))
            throw new ImageLockedException($"Failed to get a lock\nIs another process using the image [{name}]?");
        FileRegion? region = _regions.TryGetValue(name, out FileRegion found) ? found : null;
        var file = new SimulatedFile(this, name, disk, access) { Faults = faults, CanPunchHoles = canPunchHoles, Region = region };
        _open.Add(file);
        // A second file of a disk belongs to who has the first.
        if (access == ImageAccess.Write)
            file.Generation = region is { Start: > 0 } ? _lastGeneration : ++_lastGeneration;
        Trace.Add("open", (long)access);
        return file;
    }

    /// <summary>The handle's locks go with it.</summary>
    public void Release(SimulatedFile file) => _open.Remove(file);

    /// <summary>The process of one handle dies.</summary>
    public void Kill(SimulatedFile file)
    {
        file.Kill();
        _open.Remove(file);
        file.Disk.EndWritesUnderWay(random, file.Generation);
    }

    /// <summary>A process dies: its handles are closed, and what it asked for and was not told of may have happened.</summary>
    public void KillAll()
    {
        foreach (SimulatedFile file in _open)
            file.Kill();
        _open.Clear();
        foreach (SimulatedDisk disk in _disks.Values)
            disk.EndWritesUnderWay(random);
    }

    public ValueTask PauseAsync(int longOneIn) => scheduler?.PauseAsync(longOneIn) ?? ValueTask.CompletedTask;

    /// <summary>Lets others go first while the caller, on a thread of its own, stays where it is.</summary>
    public void TakeTurns() => scheduler?.TakeTurns(random.Next(random.Next(4) == 0 ? 60 : 2));

    public ValueTask WaitAsync(int turns) => scheduler?.WaitAsync(turns) ?? ValueTask.CompletedTask;

    private static bool Excludes(ImageAccess one, ImageAccess other) => one == ImageAccess.ReadShared || other == ImageAccess.ReadShared
        ? false : one == ImageAccess.Write || other == ImageAccess.Write;
}
