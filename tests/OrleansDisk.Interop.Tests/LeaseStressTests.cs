using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Concurrency;
using OrleansDisk.Qcow2.Data;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Interop.Tests;

/// <summary>
/// Threads that read and write under leases, and by turns where a lease refuses, beside one that discards, zeros,
/// flushes and grows; small clusters and small caches, so that clusters and tables change hands all the time.
/// </summary>
public sealed class LeaseStressTests
{
    private const int SectorBytes = 512;
    private const int SectorCount = 2048;
    private const int SessionCount = 3;

    [Theory]
    [InlineData(512, 16, 3, 1)]
    [InlineData(512, 16, 2, 2)]
    [InlineData(4096, 16, 3, 3)]
    [InlineData(4096, 1, 3, 4)]
    [InlineData(16384, 16, 3, 5)]
    public async Task Sessions_under_leases_see_in_every_sector_what_one_of_its_last_writers_wrote(
        int clusterBytes, int refcountBits, int version, int seed)
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = directory.File("disk");
        await CreateOperation.CreateAsync(path, new CreateOptions
        {
            VirtualBytes = SectorCount * SectorBytes,
            ClusterBytes = clusterBytes,
            RefcountBits = refcountBits,
            Version = version,
        });
        var turns = new ImageTurns();
        var lingering = new LingeringFile(LocalBlockFile.Open(path, ImageAccess.Write));
        // With the smallest clusters the disk has 32 tables: some are in the cache for leases to use, some have to come.
        Qcow2OpenOptions options = Disk.Writing(clusterBytes) with { L2CacheBytes = clusterBytes * 12L };
        Qcow2Image image = await turns.RunAsync(() => Qcow2Image.OpenAsync(lingering, options));
        var history = new SectorHistory(SectorCount, seed);
        var sessions = new Session[SessionCount];
        for (int i = 0; i < SessionCount; i++)
            sessions[i] = await turns.RunAsync(() => Task.FromResult(new Session(image, turns, history, (seed * 16) + i)));
        var changes = new Changes(image, turns, history, clusterBytes, seed);
        await Task.WhenAll([changes.RunAsync(), .. sessions.Select(session => session.RunAsync(6000))]).WaitAsync(Exclusive.Patience);
        byte[] bytes = new byte[SectorCount * SectorBytes];
        long began = history.Now();
        await turns.RunAsync(async () => await image.ReadAsync(0, bytes));
        history.Judge(0, bytes, began);
        await turns.RunAsync(() => image.CloseAsync());
        Assert.False(image.HasFailed);
        Assert.True(sessions.Sum(session => session.LeaseCount) > 500, "hardly anything was done under a lease");
        await Judge.FindsCleanAsync(path);
        await using var file = LocalBlockFile.Open(path, ImageAccess.Read);
        await using Qcow2Image again = await Qcow2Image.OpenAsync(file, new Qcow2OpenOptions());
        byte[] stored = new byte[bytes.Length];
        await again.ReadAsync(0, stored);
        Assert.Equal(bytes, stored);
    }

    /// <summary>A connection: a thread with a lease.</summary>
    private sealed class Session(Qcow2Image image, ImageTurns turns, SectorHistory history, int seed)
    {
        private readonly MappingLease _lease = image.Lease();
        private readonly Random _random = new(seed);

        /// <summary>Requests that needed no turn.</summary>
        public int LeaseCount { get; private set; }

        public Task RunAsync(int requestCount) => Task.Factory.StartNew(
            () => Run(requestCount), CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default);

        private void Run(int requestCount)
        {
            byte[] buffer = new byte[64 * SectorBytes];
            for (int i = 0; i < requestCount && !history.HasFailed; i++)
            {
                int count = 1 + _random.Next(_random.Next(8) == 0 ? 64 : 8);
                int first = _random.Next(SectorCount - count + 1);
                if (_random.Next(2) == 0)
                    Read(first, buffer.AsMemory(0, count * SectorBytes));
                else
                    Write(first, buffer.AsMemory(0, count * SectorBytes));
            }
            _lease.Dispose();
        }

        private void Read(int first, Memory<byte> buffer)
        {
            long offset = (long)first * SectorBytes;
            long began = history.Now();
            if (_lease.TryRead(offset, buffer.Span))
                LeaseCount++;
            else
                turns.RunAsync(async () => await image.ReadAsync(offset, buffer)).GetAwaiter().GetResult();
            history.Judge(first, buffer.Span, began);
        }

        private void Write(int first, Memory<byte> buffer)
        {
            long offset = (long)first * SectorBytes;
            SectorHistory.Writer writer = history.Begin(first, buffer.Length / SectorBytes);
            writer.Fill(buffer.Span);
            if (_lease.TryWrite(offset, buffer.Span))
                LeaseCount++;
            else
                turns.RunAsync(async () => await image.WriteAsync(offset, buffer)).GetAwaiter().GetResult();
            history.End(writer);
        }
    }

    /// <summary>What takes clusters away and gives them to others.</summary>
    private sealed class Changes(Qcow2Image image, ImageTurns turns, SectorHistory history, int clusterBytes, int seed)
    {
        private readonly Random _random = new(seed);

        public async Task RunAsync()
        {
            for (int i = 0; i < 2500 && !history.HasFailed; i++)
                await turns.RunAsync(RunOneAsync);
        }

        private async Task RunOneAsync()
        {
            int kind = _random.Next(400);
            if (kind == 0)
                await image.ResizeAsync(image.VirtualBytes + clusterBytes);
            else if (kind == 1)
                await image.RunSettledAsync(_ => Task.CompletedTask);
            else if (kind < 100)
                await image.FlushAsync();
            else
                await ZeroAsync();
        }

        private async Task ZeroAsync()
        {
            int perCluster = clusterBytes / SectorBytes;
            int count = perCluster * (1 + _random.Next(4));
            int first = _random.Next((SectorCount - count) / perCluster + 1) * perCluster;
            int kind = _random.Next(4);
            if (kind == 0)
                (first, count) = (first + _random.Next(perCluster), 1 + _random.Next(perCluster));
            count = Math.Min(count, SectorCount - first);
            SectorHistory.Writer writer = history.BeginZeros(first, count);
            long offset = (long)first * SectorBytes;
            if (kind == 1)
                await image.DiscardAsync(offset, (long)count * SectorBytes);
            else
                await image.WriteZeroesAsync(offset, (long)count * SectorBytes, mayUnmap: kind == 2);
            history.End(writer);
        }
    }
}
