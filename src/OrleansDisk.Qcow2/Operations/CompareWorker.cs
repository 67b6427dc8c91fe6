using OrleansDisk.Qcow2.Data;

namespace OrleansDisk.Qcow2.Operations;

/// <summary>Compares one part of two disks after the other, in buffers of its own.</summary>
internal sealed class CompareWorker(IDiskSource first, IDiskSource second, int partBytes, Func<Action, ValueTask> runBeside) : IDisposable
{
    private const int SectorBytes = 512;

    /// <summary>What is read from both before it is compared: so much of both stays in a processor's cache meanwhile.</summary>
    private const int StepBytes = 128 << 10;

    private readonly CachedReads _cachedFirst = new(first);
    private readonly CachedReads _cachedSecond = new(second);
    private readonly byte[] _first = GC.AllocateUninitializedArray<byte>(partBytes, pinned: true);
    private readonly byte[] _second = GC.AllocateUninitializedArray<byte>(partBytes, pinned: true);

    /// <summary>Compares a part; returns the first sector of the disk in which they differ, or null.</summary>
    /// <param name="start">First byte of the part.</param>
    /// <param name="bytes">Its length, at most that of a part.</param>
    /// <param name="readsFirst">Whether the first disk is read; else it is zero there.</param>
    /// <param name="readsSecond">Whether the second disk is read; else it is zero there.</param>
    /// <exception cref="CompareException">One can't be read.</exception>
    public async Task<long?> CompareAsync(long start, int bytes, bool readsFirst, bool readsSecond)
    {
        int done = 0;
        int? difference = null;
        await runBeside(() => done = CompareCached(start, bytes, readsFirst, readsSecond, out difference));
        if (difference is null && done < bytes)
        {
            Memory<byte> one = _first.AsMemory(done, bytes - done);
            Memory<byte> other = _second.AsMemory(done, bytes - done);
            ValueTask readOne = ReadAsync(first, start + done, one, readsFirst, isFirst: true);
            ValueTask readOther = ReadAsync(second, start + done, other, readsSecond, isFirst: false);
            try
            {
                await readOne;
            }
            finally
            {
                await readOther;
            }
            await runBeside(() => difference = done + FindDifference(one.Span, other.Span));
        }
        return start + difference;
    }

    public void Dispose()
    {
        _cachedFirst.Dispose();
        _cachedSecond.Dispose();
    }

    /// <summary>Compares what is in memory; returns how much of the part that was.</summary>
    private int CompareCached(long start, int bytes, bool readsFirst, bool readsSecond, out int? difference)
    {
        difference = null;
        int at = 0;
        while (at < bytes && difference is null)
        {
            int step = Math.Min(StepBytes, bytes - at);
            Span<byte> one = _first.AsSpan(0, step);
            Span<byte> other = _second.AsSpan(0, step);
            if (!TryRead(_cachedFirst, start + at, one, readsFirst) || !TryRead(_cachedSecond, start + at, other, readsSecond))
                break;
            difference = at + FindDifference(one, other);
            at += step;
        }
        return at;
    }

    private static bool TryRead(CachedReads disk, long offset, Span<byte> buffer, bool isWanted)
    {
        if (isWanted)
            return disk.TryRead(offset, buffer);
        buffer.Clear();
        return true;
    }

    private static async ValueTask ReadAsync(IDiskSource disk, long offset, Memory<byte> buffer, bool isWanted, bool isFirst)
    {
        if (!isWanted)
        {
            buffer.Span.Clear();
            return;
        }
        try
        {
            await disk.ReadAsync(offset, buffer);
        }
        catch (IOException e)
        {
            throw new CompareException(isFirst, offset, e);
        }
    }

    /// <summary>The first sector that differs, or null.</summary>
    private static int? FindDifference(ReadOnlySpan<byte> one, ReadOnlySpan<byte> other)
    {
        int same = one.CommonPrefixLength(other);
        return same == one.Length ? null : same / SectorBytes * SectorBytes;
    }
}
