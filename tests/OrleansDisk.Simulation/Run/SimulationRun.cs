using OrleansDisk.Simulation.Crash;
using OrleansDisk.Simulation.Host;
using OrleansDisk.Simulation.Workload;
using OrleansDisk.Simulation.Workload.Operations;

namespace OrleansDisk.Simulation.Run;

/// <summary>How closely a run is looked at.</summary>
internal sealed record SimulationLimits
{
    public int MaxStatesPerBarrier { get; init; } = StateSelection.DefaultMaxStates;

    /// <summary>One in so many states with metadata of their own is recovered, used and made to crash again; 0 for none.</summary>
    public int RecoverOneIn { get; init; } = 10;

    /// <summary>QEMU is asked about one in so many states with metadata of their own; 0 for none.</summary>
    public int QemuOneIn { get; init; } = 4000;
}

/// <summary>What a run came to.</summary>
internal sealed record SimulationResult(ulong TraceHash, StateCounts Counts, IReadOnlyDictionary<string, int> Events, string? Struck)
{
    /// <summary>Whether the image stopped.</summary>
    public bool HasStopped { get; init; }
}

/// <summary>
/// One seeded run: an image on a simulated disk under a load, and at every barrier the states in which a crash could
/// leave the file, each held against docs/testing.md's invariants.
/// </summary>
internal sealed class SimulationRun
{
    private const int MaxStatesInRecovery = 12;
    private const int RecoveryOperations = 4;
    private readonly SimulationPlan _plan;
    private readonly SimulationLimits _limits;
    private readonly SeededScheduler _scheduler;
    private readonly SimulatedHost _host;
    private readonly StartImage _start;
    private readonly FaultPlan _faults;
    private readonly StateCounts _counts = new();
    private readonly World _world;
    private readonly Random _recoveryRandom;

    public SimulationRun(SimulationPlan plan, SimulationLimits limits)
    {
        (_plan, _limits) = (plan, limits);
        _scheduler = new SeededScheduler(SimulationPlan.RandomOf(plan.Seed, "scheduler"));
        _host = new SimulatedHost(_scheduler, SimulationPlan.RandomOf(plan.Seed, "host"));
        _start = StartImage.Make(plan.Shape, SimulationPlan.RandomOf(plan.Seed, "image"), _host);
        _faults = new FaultPlan(plan.Faults);
        _host.BackingFaults = _faults;
        _world = new World(plan.Shape, _host, _start, _faults, SimulationPlan.RandomOf(plan.Seed, "world"));
        _recoveryRandom = SimulationPlan.RandomOf(plan.Seed, "recovery");
    }

    public World World => _world;

    /// <exception cref="SimulationFailure">Something that must hold does not.</exception>
    public SimulationResult Run()
    {
        var selection = new StateSelection(_limits.MaxStatesPerBarrier, SimulationPlan.RandomOf(_plan.Seed, "states"));
        var judge = new StateJudge(selection, _counts) { Examined = LookCloser };
        _world.AtBarrier = disk => judge.Judge(disk, _world.Model, _world.Limits);
        _scheduler.Run(async () =>
        {
            await _world.NoteStartAsync();
            await _world.OpenAsync();
            await RunOperationsAsync(_world, _plan.Operations);
        });
        _host.Trace.Add("states", _counts.States, _counts.Examined);
        return new SimulationResult(_host.Trace.Hash, _counts, _faults.Counts, _faults.Struck) { HasStopped = _world.StopCount > 0 };
    }

    private static async Task RunOperationsAsync(World world, IReadOnlyList<IOperation> operations)
    {
        var running = new List<Task>();
        foreach (IOperation operation in operations)
        {
            if (operation.Timing == Timing.Alone)
                await EndAllAsync(running);
            while (running.Count >= world.Shape.MaxInFlight)
                await EndSomeAsync(running);
            if (world.Image.HasFailed)
            {
                await EndAllAsync(running);
                await world.RecoverAsync();
            }
            int incarnation = world.Incarnation;
            Task run = operation.RunAsync(world);
            if (operation.Timing == Timing.Beside)
                running.Add(run);
            else
                await run;
            // What ran when the process died never ends.
            if (incarnation != world.Incarnation)
                running.Clear();
        }
        await EndAllAsync(running);
        await CloseAsync(world);
        if (world.Image.HasFailed)
            await CloseAsync(world);
    }

    /// <summary>Ends a run with an image that is closed, checked and open again, or has stopped while it was closed.</summary>
    private static async Task CloseAsync(World world)
    {
        if (world.Image.HasFailed)
            await world.RecoverAsync();
        await new ReopenOperation(ReadOnlyBetween: true).RunAsync(world);
    }

    private static async Task EndSomeAsync(List<Task> running)
    {
        await Task.WhenAny(running);
        foreach (Task ended in running.Where(task => task.IsCompleted).ToArray())
        {
            running.Remove(ended);
            await ended;
        }
    }

    private static async Task EndAllAsync(List<Task> running)
    {
        while (running.Count > 0)
            await EndSomeAsync(running);
    }

    private void LookCloser(UnflushedWrites writes, CrashState state, byte[] disk)
    {
        // QEMU would look for an external data file where it runs.
        if (_limits.QemuOneIn > 0 && _plan.Shape.DataFile == DataFileKind.None && _recoveryRandom.Next(_limits.QemuOneIn) == 0)
        {
            _counts.JudgedByQemu++;
            QemuJudge.Judge(_host, _plan.Shape, writes.Materialize(state), disk);
        }
        if (_limits.RecoverOneIn > 0 && _recoveryRandom.Next(_limits.RecoverOneIn) == 0)
            Recover(writes.Materialize(state));
    }

    /// <summary>Opens what a crash left, uses it, and lets it crash again.</summary>
    private void Recover(byte[] file)
    {
        _counts.Recovered++;
        var random = new Random(_recoveryRandom.Next());
        var scheduler = new SeededScheduler(random);
        var host = new SimulatedHost(scheduler, random);
        host.TakeBackingOf(_host, StartImage.Name);
        StartImage.Install(_plan.Shape, host, StartImage.Copy(_host[StartImage.Name], file));
        var world = new World(_plan.Shape, host, _start, new FaultPlan([]), random)
        {
            Model = _world.Model.Clone(),
            HasChangedSnapshots = _world.HasChangedSnapshots,
            InheritedLeaks = _world.Limits.MaxLeaks,
        };
        var judge = new StateJudge(new StateSelection(MaxStatesInRecovery, random), _counts);
        world.AtBarrier = disk => judge.Judge(disk, world.Model, world.Limits);
        try
        {
            scheduler.Run(async () =>
            {
                await world.StartFromCrashAsync();
                await RunOperationsAsync(world, SimulationPlan.DrawOperations(new OperationDraw(random, _plan.Shape), RecoveryOperations));
            });
        }
        catch (SimulationFailure e)
        {
            throw new SimulationFailure(e.Invariant, $"after a recovery: {e.Message[(e.Invariant.Length + 2)..]}");
        }
    }
}
