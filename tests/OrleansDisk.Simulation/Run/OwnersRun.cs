using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Qcow2.Operations;
using OrleansDisk.Simulation.Host;
using OrleansDisk.Simulation.Model;
using OrleansDisk.Simulation.Workload;

namespace OrleansDisk.Simulation.Run;

/// <summary>
/// Several owners of one image file: each opens it when it can, uses it, lets go or dies, at the seed's will and with
/// pauses between any two steps. Once a write of a later owner takes effect, none of an earlier one may (F1).
/// </summary>
/// <param name="seed">Decides everything.</param>
/// <param name="keepsLocks">Whether the simulated system keeps the locks that are to keep owners apart.</param>
internal sealed class OwnersRun(int seed, bool keepsLocks)
{
    private const int SectorCount = 128;
    private const int OwnerCount = 3;
    private const int TenuresPerOwner = 4;
    private const string Name = StartImage.Name;
    private readonly Random _random = SimulationPlan.RandomOf(seed, "owners");
    private readonly DiskModel _model = new(new long[SectorCount]);
    private bool _wasHandedOver = true;

    /// <summary>How often an owner had the image.</summary>
    public int TenureCount { get; private set; }

    /// <summary>How often one was kept out.</summary>
    public int RefusalCount { get; private set; }

    /// <exception cref="SimulationFailure">Two owners got at the file, or a change was lost between two of them.</exception>
    public void Run()
    {
        var scheduler = new SeededScheduler(SimulationPlan.RandomOf(seed, "scheduler"));
        var host = new SimulatedHost(scheduler, _random) { KeepsLocks = keepsLocks, [Name] = new SimulatedDisk([]) };
        scheduler.Run(async () =>
        {
            await using (SimulatedFile empty = Open(host))
                await CreateOperation.CreateAsync(empty, new CreateOptions { VirtualBytes = SectorCount * 512L, ClusterBytes = 512L << _random.Next(4) });
            Task[] owners = [.. Enumerable.Range(0, OwnerCount).Select(_ => OwnAsync(host, scheduler))];
            while (Array.Exists(owners, owner => !owner.IsCompleted))
            {
                await Task.WhenAny(owners.Where(owner => !owner.IsCompleted));
                await Task.WhenAll(owners.Where(owner => owner.IsCompleted));
            }
        });
    }

    private async Task OwnAsync(SimulatedHost host, SeededScheduler scheduler)
    {
        for (int tenure = 0; tenure < TenuresPerOwner;)
        {
            await scheduler.WaitAsync(_random.Next(400));
            SimulatedFile file;
            try
            {
                file = Open(host);
            }
            catch (ImageLockedException)
            {
                RefusalCount++;
                continue;
            }
            tenure++;
            TenureCount++;
            Task use = UseAsync(file, scheduler);
            if (_random.Next(3) == 0)
            {
                await Task.WhenAny(use, WaitAsync(scheduler, _random.Next(600)));
                if (!use.IsCompleted)
                {
                    _wasHandedOver = false;
                    host.Kill(file);
                    continue;
                }
            }
            await use;
        }
    }

    /// <summary>As a task of its own: the bare one would wake who waits for the first of several on another thread.</summary>
    private static async Task WaitAsync(SeededScheduler scheduler, int turns) => await scheduler.WaitAsync(turns);

    private async Task UseAsync(SimulatedFile file, SeededScheduler scheduler)
    {
        Qcow2Image image = await Qcow2Image.OpenAsync(file, new Qcow2OpenOptions { Access = ImageAccess.Write, L2CacheBytes = 1024, RefcountCacheBytes = 1024 });
        byte[] disk = new byte[SectorCount * SectorContent.Bytes];
        long[] from = _model.BeginRead(0, disk.Length);
        await image.ReadAsync(0, disk);
        if (_wasHandedOver)
            _model.EndRead(0, disk, from);
        _model.Restart(disk, isDurable: false);
        _wasHandedOver = false;
        for (int i = _random.Next(12); i > 0; i--)
        {
            await scheduler.WaitAsync(_random.Next(40));
            int first = _random.Next(SectorCount - 8);
            DiskModel.Change change = _model.BeginWrite(first * 512L, 512 * (1 + _random.Next(8)), out byte[] data);
            bool isDurable = _random.Next(4) == 0;
            await image.WriteAsync(first * 512L, data, isDurable);
            if (!file.IsDead)
                change.Succeed(isDurable);
        }
        await image.CloseAsync();
        _wasHandedOver = !file.IsDead;
    }

    private static SimulatedFile Open(SimulatedHost host) => host.Open(Name, ImageAccess.Write, new FaultPlan([]), canPunchHoles: true);
}
