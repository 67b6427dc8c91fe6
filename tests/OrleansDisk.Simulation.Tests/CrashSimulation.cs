using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Check;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Simulation.Tests;

/// <summary>
/// One seeded run: an image on a simulated file under a random load, and at every barrier a sample of the states in
/// which a crash could leave the file. Each state must be an image without corruption in which every sector holds its
/// last flushed value or a later one.
/// </summary>
internal sealed class CrashSimulation
{
    private const int VirtualSectors = 256;
    private readonly int _seed;
    private readonly Random _random;
    private readonly SeededScheduler _scheduler;
    private readonly DiskHistory _history = new(VirtualSectors);
    private readonly HashSet<int> _busySectors = [];
    private readonly CreateOptions _create;
    private readonly int _statesPerBarrier;
    private long _lastValue;

    public CrashSimulation(int seed, int statesPerBarrier)
    {
        _seed = seed;
        _statesPerBarrier = statesPerBarrier;
        _random = new Random(seed);
        _scheduler = new SeededScheduler(_random);
        _create = new CreateOptions
        {
            VirtualBytes = VirtualSectors * DiskHistory.SectorBytes,
            Version = _random.Next(4) == 0 ? 2 : 3,
            ClusterBytes = 512L << _random.Next(4),
            RefcountBits = 16,
        };
        if (_create.Version == 3)
            _create = _create with { RefcountBits = 1L << _random.Next(7) };
    }

    /// <summary>How many crash states were looked at.</summary>
    public int StateCount { get; private set; }

    public void Run(int operationCount) => _scheduler.Run(() => RunAsync(operationCount));

    private async Task RunAsync(int operationCount)
    {
        var empty = new SimulatedFile([]);
        await CreateOperation.CreateAsync(empty, _create);
        byte[] start = empty.CrashState(empty.Pending, new Random(0));
        var file = new SimulatedFile(start, _scheduler) { CanPunchHoles = _random.Next(2) == 0 };
        Qcow2Image image = await Qcow2Image.OpenAsync(file, Options());
        file.Flushing = () => CheckStatesAsync(file);
        var running = new List<Task>();
        for (int i = 0; i < operationCount; i++)
        {
            running.Add(RunOneAsync(image));
            if (running.Count >= 6)
            {
                await Task.WhenAny(running);
                running.RemoveAll(task => task.IsCompletedSuccessfully);
                Task? failed = running.Find(task => task.IsFaulted);
                if (failed is not null)
                    await failed;
            }
        }
        await Task.WhenAll(running);
        await image.CloseAsync();
        await CheckCleanAsync(file);
    }

    private Qcow2OpenOptions Options() => new()
    {
        Access = ImageAccess.Write,
        // Two or three tables: every eviction path is walked.
        L2CacheBytes = _create.ClusterBytes * (2 + _random.Next(2)),
        RefcountCacheBytes = _create.ClusterBytes * 2,
    };

    private async Task RunOneAsync(Qcow2Image image)
    {
        int kind = _random.Next(12);
        if (kind == 0)
        {
            IReadOnlyList<DiskHistory.Value> durable = _history.Completed();
            await image.FlushAsync();
            _history.Flushed(durable);
            return;
        }
        int count = 1 + _random.Next(_random.Next(3) == 0 ? 48 : 6);
        int first = _random.Next(VirtualSectors - count);
        if (kind == 5)
        {
            await ReadAsync(image, first, count);
            return;
        }
        if (!Enumerable.Range(first, count).All(sector => !_busySectors.Contains(sector)))
            return;
        foreach (int sector in Enumerable.Range(first, count))
            _busySectors.Add(sector);
        long offset = (long)first * DiskHistory.SectorBytes;
        int bytes = count * DiskHistory.SectorBytes;
        IReadOnlyList<DiskHistory.Value> values;
        switch (kind)
        {
            case 1 or 2:
                values = _history.Begin(first, count, 0);
                await image.WriteZeroesAsync(offset, bytes, mayUnmap: kind == 1);
                break;
            case 3 or 4:
                values = await DiscardAsync(image, first, count);
                break;
            default:
                long value = ++_lastValue;
                values = _history.Begin(first, count, value);
                await image.WriteAsync(offset, DiskHistory.Fill(count, value));
                break;
        }
        foreach (DiskHistory.Value value in values)
            value.IsComplete = true;
        foreach (int sector in Enumerable.Range(first, count))
            _busySectors.Remove(sector);
    }

    /// <summary>A discard may leave each sector as it was or make it zeros, and what it then reads stays.</summary>
    private async Task<IReadOnlyList<DiskHistory.Value>> DiscardAsync(Qcow2Image image, int first, int count)
    {
        long[] before = Enumerable.Range(first, count).Select(_history.Current).ToArray();
        IReadOnlyList<DiskHistory.Value> zeroed = _history.Begin(first, count, 0);
        await image.DiscardAsync((long)first * DiskHistory.SectorBytes, count * DiskHistory.SectorBytes);
        byte[] read = new byte[count * DiskHistory.SectorBytes];
        await image.ReadAsync((long)first * DiskHistory.SectorBytes, read);
        var values = new List<DiskHistory.Value>(zeroed);
        for (int i = 0; i < count; i++)
        {
            long? value = DiskHistory.Parse(read.AsSpan(i * DiskHistory.SectorBytes, DiskHistory.SectorBytes));
            Assert.True(value == 0 || value == before[i], Message($"sector {first + i} reads {value} after a discard"));
            if (value != 0)
                values.AddRange(_history.Begin(first + i, 1, before[i]));
        }
        return values;
    }

    /// <summary>Reads go beside everything else: each sector is one of the values that it had meanwhile.</summary>
    private async Task ReadAsync(Qcow2Image image, int first, int count)
    {
        int[] from = _history.BeginRead(first, count);
        byte[] read = new byte[count * DiskHistory.SectorBytes];
        await image.ReadAsync((long)first * DiskHistory.SectorBytes, read);
        for (int i = 0; i < count; i++)
        {
            long? value = DiskHistory.Parse(read.AsSpan(i * DiskHistory.SectorBytes, DiskHistory.SectorBytes));
            Assert.True(_history.MayRead(first + i, from[i], value),
                Message($"sector {first + i} reads {value?.ToString() ?? "a mixture"}, allowed: {_history.Describe(first + i)}"));
        }
    }

    private async Task CheckStatesAsync(SimulatedFile file)
    {
        SimulatedFile.Write[] pending = file.Pending.ToArray();
        for (int i = 0; i < _statesPerBarrier; i++)
        {
            IEnumerable<SimulatedFile.Write> reached = i switch
            {
                0 => pending,
                1 => [],
                2 => pending.Where((_, index) => index != _random.Next(pending.Length)),
                _ => pending.Where(_ => _random.Next(2) == 0),
            };
            byte[] state = file.CrashState(reached.ToArray(), _random);
            StateCount++;
            await CheckStateAsync(state);
        }
    }

    private async Task CheckStateAsync(byte[] state)
    {
        CheckReport report = await ImageCheck.RunAsync(new SimulatedFile(state) { IsReadOnly = true }, new CheckOptions());
        Assert.True(report.CorruptionCount + report.CheckErrorCount == 0,
            Message($"a crash left corruption: {string.Join("; ", report.Findings.Take(5).Select(f => f.Message))}"));
        byte[] disk = await ReadDiskAsync(state);
        int forbidden = _history.FirstForbidden(disk);
        if (forbidden < 0)
            return;
        long? value = DiskHistory.Parse(disk.AsSpan(forbidden * DiskHistory.SectorBytes, DiskHistory.SectorBytes));
        Assert.Fail(Message($"after a crash sector {forbidden} holds {value?.ToString() ?? "a mixture"}, allowed: {_history.Describe(forbidden)}"));
    }

    private async Task CheckCleanAsync(SimulatedFile file)
    {
        byte[] state = file.CrashState(file.Pending, new Random(0));
        Assert.Empty(file.Pending);
        CheckReport report = await ImageCheck.RunAsync(new SimulatedFile(state) { IsReadOnly = true }, new CheckOptions());
        Assert.True(report.IsConsistent, Message($"not clean when closed: {string.Join("; ", report.Findings.Take(5).Select(f => f.Message))}"));
        byte[] disk = await ReadDiskAsync(state);
        for (int sector = 0; sector < VirtualSectors; sector++)
        {
            long? value = DiskHistory.Parse(disk.AsSpan(sector * DiskHistory.SectorBytes, DiskHistory.SectorBytes));
            Assert.True(value == _history.Current(sector), Message($"sector {sector} holds {value} when closed, not {_history.Current(sector)}"));
        }
    }

    private static async Task<byte[]> ReadDiskAsync(byte[] state)
    {
        byte[] disk = new byte[VirtualSectors * DiskHistory.SectorBytes];
        await using Qcow2Image image = await Qcow2Image.OpenAsync(new SimulatedFile(state) { IsReadOnly = true }, new Qcow2OpenOptions());
        await image.ReadAsync(0, disk);
        return disk;
    }

    private string Message(string what) =>
        $"seed {_seed} (v{_create.Version}, cluster {_create.ClusterBytes}, refcount {_create.RefcountBits} bits): {what}";
}
