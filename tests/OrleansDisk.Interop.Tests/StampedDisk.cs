using System.Buffers.Binary;
using OrleansDisk.Qcow2;

namespace OrleansDisk.Interop.Tests;

/// <summary>
/// Writes, zeros, discards and reads that overlap freely. Every sector written holds its writer's stamp; what a read may
/// find follows from when operations began and ended: the stamp of a writer that began before the read ended, unless
/// another writer of that sector began after that one ended and ended before the read began.
/// </summary>
internal sealed class StampedDisk(Qcow2Image image, int sectorCount, int clusterBytes, int seed)
{
    private const int SectorBytes = 512;
    private readonly Random _random = new(seed);
    private readonly List<Writer>[] _writersOf = [.. Enumerable.Range(0, sectorCount).Select(_ => new List<Writer> { new(0) { Began = -1, Ended = -1 } })];
    private long _clock;
    private ulong _lastStamp;

    public async Task RunAsync(int operationCount, int depth)
    {
        var running = new List<Task>();
        for (int i = 0; i < operationCount; i++)
        {
            running.Add(RunOneAsync());
            if (running.Count >= depth)
            {
                Task ended = await Task.WhenAny(running);
                running.Remove(ended);
                await ended;
            }
        }
        await Task.WhenAll(running);
    }

    /// <summary>Reads all sectors; what they hold must be what one of the last writers left. Returns the disk's bytes.</summary>
    public async Task<byte[]> VerifyAsync()
    {
        byte[] all = new byte[sectorCount * SectorBytes];
        long began = ++_clock;
        await image.ReadAsync(0, all);
        Judge(0, all, began, ++_clock);
        return all;
    }

    private async Task RunOneAsync()
    {
        int count = 1 + _random.Next(_random.Next(4) == 0 ? sectorCount / 8 : 12);
        int first = _random.Next(sectorCount - count + 1);
        switch (_random.Next(12))
        {
            case 0:
                await image.FlushAsync();
                return;
            case 1 or 2 or 3:
                byte[] read = new byte[count * SectorBytes];
                long began = ++_clock;
                await image.ReadAsync((long)first * SectorBytes, read);
                Judge(first, read, began, ++_clock);
                return;
            case 4:
                (first, count) = WholeClusters(first, count);
                await WriteAsync(0, first, count, () => image.DiscardAsync((long)first * SectorBytes, (long)count * SectorBytes));
                return;
            case 5 or 6:
                bool mayUnmap = _random.Next(2) == 0;
                await WriteAsync(0, first, count, () => image.WriteZeroesAsync((long)first * SectorBytes, (long)count * SectorBytes, mayUnmap));
                return;
            default:
                ulong stamp = ++_lastStamp;
                byte[] data = new byte[count * SectorBytes];
                for (int at = 0; at < data.Length; at += sizeof(ulong))
                    BinaryPrimitives.WriteUInt64LittleEndian(data.AsSpan(at), stamp);
                bool fua = _random.Next(32) == 0;
                await WriteAsync(stamp, first, count, () => image.WriteAsync((long)first * SectorBytes, data, fua));
                return;
        }
    }

    private async Task WriteAsync(ulong stamp, int first, int count, Func<ValueTask> write)
    {
        var writer = new Writer(stamp) { Began = ++_clock };
        for (int sector = first; sector < first + count; sector++)
            _writersOf[sector].Add(writer);
        await write();
        writer.Ended = ++_clock;
    }

    private (int First, int Count) WholeClusters(int first, int count)
    {
        int sectors = clusterBytes / SectorBytes;
        first = first / sectors * sectors;
        return (first, Math.Min(sectorCount - first, (count + sectors - 1) / sectors * sectors));
    }

    private void Judge(int first, ReadOnlySpan<byte> bytes, long began, long ended)
    {
        for (int sector = first; bytes.Length > 0; sector++, bytes = bytes[SectorBytes..])
        {
            ulong stamp = BinaryPrimitives.ReadUInt64LittleEndian(bytes);
            for (int at = 0; at < SectorBytes; at += sizeof(ulong))
            {
                Assert.True(BinaryPrimitives.ReadUInt64LittleEndian(bytes[at..]) == stamp,
                    $"seed {seed}: sector {sector} is torn: {stamp} and {BinaryPrimitives.ReadUInt64LittleEndian(bytes[at..])}");
            }
            List<Writer> writers = _writersOf[sector];
            bool isAllowed = writers.Exists(w => w.Stamp == stamp && w.Began < ended && !writers.Exists(
                later => later.Began > w.Ended && later.Ended < began));
            Assert.True(isAllowed, $"seed {seed}: sector {sector} holds {stamp}, which was overwritten or never written there");
        }
    }

    private sealed class Writer(ulong stamp)
    {
        public ulong Stamp { get; } = stamp;

        public long Began { get; init; }

        public long Ended { get; set; } = long.MaxValue;
    }
}
