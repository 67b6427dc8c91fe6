using System.Runtime.InteropServices;

namespace OrleansDisk.Interop.Tests;

/// <summary>
/// Who wrote each sector and when, told by many threads. A read may find the stamp of a writer that began before the read
/// ended, unless another writer of that sector began after that one ended and ended before the read began. Where writers
/// overlap, each 8 bytes of a sector are judged alone: the kernel does not promise more.
/// </summary>
internal sealed class SectorHistory(int sectorCount, int seed)
{
    private const int SectorBytes = 512;
    private readonly List<Writer>[] _writersOf = [.. Enumerable.Range(0, sectorCount).Select(_ => new List<Writer> { new(0, 0, 0) { Began = -1, Ended = -1 } })];
    private readonly Lock _lock = new();
    private long _clock;
    private long _lastStamp;

    /// <summary>Whether a read found what it must not: others need not go on.</summary>
    public bool HasFailed { get; private set; }

    public long Now() => Interlocked.Increment(ref _clock);

    /// <summary>A write begins, with a stamp of its own.</summary>
    public Writer Begin(int first, int count) => Begin(new Writer(Interlocked.Increment(ref _lastStamp), first, count));

    /// <summary>The range is about to become zeros.</summary>
    public Writer BeginZeros(int first, int count) => Begin(new Writer(0, first, count));

    /// <summary>The write was acknowledged.</summary>
    public void End(Writer writer)
    {
        lock (_lock)
            writer.Ended = Now();
    }

    /// <summary>Holds what a read found that began at a time and ends now against what it may find.</summary>
    public void Judge(int first, ReadOnlySpan<byte> bytes, long began)
    {
        lock (_lock)
        {
            long ended = Now();
            ReadOnlySpan<long> words = MemoryMarshal.Cast<byte, long>(bytes);
            const int wordsPerSector = SectorBytes / sizeof(long);
            for (int word = 0; word < words.Length; word++)
            {
                if (word % wordsPerSector != 0 && words[word] == words[word - 1])
                    continue;
                int sector = first + (word / wordsPerSector);
                if (IsAllowed(_writersOf[sector], words[word], began, ended))
                    continue;
                HasFailed = true;
                Assert.Fail($"seed {seed}: sector {sector} holds {words[word]}, which was overwritten or never written there");
            }
        }
    }

    private static bool IsAllowed(List<Writer> writers, long stamp, long began, long ended) => writers.Exists(
        w => w.Stamp == stamp && w.Began < ended && !writers.Exists(later => later.Began > w.Ended && later.Ended < began));

    private Writer Begin(Writer writer)
    {
        lock (_lock)
        {
            writer.Began = Now();
            for (int sector = writer.First; sector < writer.First + writer.Count; sector++)
                _writersOf[sector].Add(writer);
        }
        return writer;
    }

    internal sealed class Writer(long stamp, int first, int count)
    {
        public long Stamp { get; } = stamp;

        public int First { get; } = first;

        public int Count { get; } = count;

        public long Began { get; set; }

        public long Ended { get; set; } = long.MaxValue;

        public void Fill(Span<byte> bytes) => MemoryMarshal.Cast<byte, long>(bytes).Fill(Stamp);
    }
}
