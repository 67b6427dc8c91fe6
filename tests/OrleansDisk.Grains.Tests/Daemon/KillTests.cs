using System.Globalization;
using System.Runtime.InteropServices;
using OrleansDisk.Grains.Tests.Fixtures;
using OrleansDisk.Nbd.Client;
using OrleansDisk.Qcow2;

namespace OrleansDisk.Grains.Tests.Daemon;

/// <summary>
/// kill -9 at random moments under load, again and again on one image. Every sector must hold what its last flush made
/// durable, or something written since. ODISK_KILL_ROUNDS asks for more rounds than a test run has time for.
/// </summary>
public sealed class KillTests
{
    private const int ConnectionCount = 4;
    private const int SectorBytes = 512;
    private const int SectorsPerConnection = 16 << 10;
    private static readonly TaskFactory Exclusively = new(new ConcurrentExclusiveSchedulerPair().ExclusiveScheduler);

    private static int RoundCount =>
        int.TryParse(Environment.GetEnvironmentVariable("ODISK_KILL_ROUNDS"), CultureInfo.InvariantCulture, out int rounds) ? rounds : 8;

    [Theory]
    [InlineData("cluster_size=64k")]
    [InlineData("cluster_size=4k,refcount_bits=1")]
    public async Task Killing_the_daemon_loses_nothing_that_was_flushed_and_leaks_at_most(string options)
    {
        using var pool = new PoolDirectory();
        await pool.CreateAsync("disk", $"{ConnectionCount * SectorsPerConnection * SectorBytes}", "-o", options);
        var random = new Random(options.Length);
        Region[] regions = Enumerable.Range(0, ConnectionCount).Select(index => new Region(index, random.Next())).ToArray();
        for (int round = 0; round < RoundCount; round++)
        {
            using RunningDaemon daemon = await RunningDaemon.StartAsync(pool);
            Task[] loads = regions.Select(region => region.RunAsync(pool.File("nbd.sock"))).ToArray();
            long doomed = regions.Sum(region => region.CompletedCount) + random.Next(50, 2000);
            await Eventually.TrueAsync(() => regions.Sum(region => region.CompletedCount) >= doomed, "requests complete");
            await daemon.CrashAsync();
            await Task.WhenAll(loads);
            await pool.CheckAllAsync(leaksAllowed: true);
            await Exclusively.StartNew(() => VerifyAsync(pool.File("disk.qcow2"), regions)).Unwrap();
        }
    }

    private static async Task VerifyAsync(string path, Region[] regions)
    {
        await using Qcow2Image image = await Qcow2Image.OpenAsync(path, new Qcow2OpenOptions());
        byte[] bytes = new byte[SectorsPerConnection * SectorBytes];
        foreach (Region region in regions)
        {
            await image.ReadAsync(region.Start, bytes);
            region.Verify(bytes);
        }
    }

    /// <summary>The part of the disk that one connection writes, one request at a time.</summary>
    private sealed class Region(int index, int seed)
    {
        private const int MaxSectors = 160;
        private readonly Random _random = new(seed);

        /// <summary>What each sector may hold: its value at the last flush, and those since. 0 is a sector of zeros.</summary>
        private readonly List<long>[] _allowed = Enumerable.Range(0, SectorsPerConnection).Select(_ => new List<long> { 0 }).ToArray();
        private long _lastValue;
        private long _completedCount;

        public long Start => (long)index * SectorsPerConnection * SectorBytes;

        public long CompletedCount => Volatile.Read(ref _completedCount);

        /// <summary>Loads the daemon until it is gone.</summary>
        public async Task RunAsync(string socket)
        {
            await using NbdClient client = await NbdClient.ConnectUnixAsync(socket, "vm/disk");
            try
            {
                while (true)
                {
                    await RunOneAsync(client);
                    Interlocked.Increment(ref _completedCount);
                }
            }
            catch (IOException)
            {
                // Killed.
            }
        }

        public void Verify(ReadOnlySpan<byte> bytes)
        {
            for (int sector = 0; sector < SectorsPerConnection; sector++)
            {
                ReadOnlySpan<long> numbers = MemoryMarshal.Cast<byte, long>(bytes.Slice(sector * SectorBytes, SectorBytes));
                bool isWhole = numbers.IndexOfAnyExcept(numbers[0]) < 0;
                Assert.True(isWhole && _allowed[sector].Contains(numbers[0]),
                    $"region {index}, sector {sector}: holds {(isWhole ? numbers[0] : "a mixture")}, allowed: {string.Join(", ", _allowed[sector])}");
                // What is read once after a crash is what the disk holds from then on.
                _allowed[sector].Clear();
                _allowed[sector].Add(numbers[0]);
            }
        }

        private async Task RunOneAsync(NbdClient client)
        {
            int kind = _random.Next(24);
            int count = 1 + _random.Next(_random.Next(4) == 0 ? MaxSectors : 8);
            int first = _random.Next(SectorsPerConnection - count);
            long offset = Start + ((long)first * SectorBytes);
            if (kind == 0)
            {
                await client.FlushAsync();
                KeepLast(0, SectorsPerConnection);
                return;
            }
            long value = kind < 3 ? 0 : ((long)index << 48) | ++_lastValue;
            for (int sector = first; sector < first + count; sector++)
                _allowed[sector].Add(value);
            if (kind < 3)
            {
                await client.WriteZeroesAsync(offset, (uint)(count * SectorBytes));
                return;
            }
            byte[] data = new byte[count * SectorBytes];
            MemoryMarshal.Cast<byte, long>(data.AsSpan()).Fill(value);
            bool fua = kind == 3;
            await client.WriteAsync(offset, data, fua);
            if (fua)
                KeepLast(first, count);
        }

        private void KeepLast(int first, int count)
        {
            for (int sector = first; sector < first + count; sector++)
                _allowed[sector].RemoveRange(0, _allowed[sector].Count - 1);
        }
    }
}
