using System.Runtime.InteropServices;

namespace OrleansDisk.Simulation.Tests;

/// <summary>
/// What every sector of the disk may hold after a crash: its value at the last flush, or any later one. Values are
/// numbers of writes; 0 is a sector of zeros. Operations under way at once must not touch the same sector.
/// </summary>
internal sealed class DiskHistory(int sectorCount)
{
    public const int SectorBytes = 512;

    /// <summary>Values from the last durable one on, oldest first; the flag says that the operation has completed.</summary>
    private readonly List<Value>[] _sectors = Enumerable.Range(0, sectorCount)
        .Select(_ => new List<Value> { new(0) { IsComplete = true } }).ToArray();

    /// <summary>All values that a sector ever had: what reads are held against.</summary>
    private readonly List<Value>[] _everything = Enumerable.Range(0, sectorCount)
        .Select(_ => new List<Value> { new(0) { IsComplete = true } }).ToArray();

    /// <summary>An operation begins that gives these sectors a value.</summary>
    public IReadOnlyList<Value> Begin(int first, int count, long value)
    {
        var begun = new List<Value>();
        for (int sector = first; sector < first + count; sector++)
        {
            var entry = new Value(value);
            _sectors[sector].Add(entry);
            _everything[sector].Add(entry);
            begun.Add(entry);
        }
        return begun;
    }

    /// <summary>What a flush that begins now will make durable.</summary>
    public IReadOnlyList<Value> Completed() => _sectors.Select(values => values.Last(v => v.IsComplete)).ToArray();

    /// <summary>That flush was acknowledged: older values may not come back.</summary>
    public void Flushed(IReadOnlyList<Value> durable)
    {
        for (int sector = 0; sector < _sectors.Length; sector++)
        {
            int index = _sectors[sector].IndexOf(durable[sector]);
            if (index > 0)
                _sectors[sector].RemoveRange(0, index);
        }
    }

    /// <summary>The first sector whose bytes are none of the values it may have, or -1.</summary>
    public int FirstForbidden(ReadOnlySpan<byte> disk)
    {
        for (int sector = 0; sector < _sectors.Length; sector++)
        {
            long? value = Parse(disk.Slice(sector * SectorBytes, SectorBytes));
            if (value is null || !_sectors[sector].Exists(v => v.Number == value))
                return sector;
        }
        return -1;
    }

    /// <summary>The place in their histories from which a read that begins now may see values of these sectors.</summary>
    public int[] BeginRead(int first, int count) => Enumerable.Range(first, count)
        .Select(sector => _everything[sector].FindLastIndex(v => v.IsComplete)).ToArray();

    /// <summary>Whether a read that began at a place in a sector's history and ends now may have seen a value.</summary>
    public bool MayRead(int sector, int from, long? value) => _everything[sector].Skip(from).Any(v => v.Number == value);

    /// <summary>What a sector may hold, for messages.</summary>
    public string Describe(int sector) => string.Join(", ", _sectors[sector].Select(v => v.Number));

    /// <summary>The value in the last place of every sector: what the disk holds when nothing is under way.</summary>
    public long Current(int sector) => _sectors[sector][^1].Number;

    public static byte[] Fill(int count, long value)
    {
        byte[] bytes = new byte[count * SectorBytes];
        MemoryMarshal.Cast<byte, long>(bytes.AsSpan()).Fill(value);
        return bytes;
    }

    /// <summary>The value that fills a sector, or null when it is a mixture.</summary>
    public static long? Parse(ReadOnlySpan<byte> sector)
    {
        ReadOnlySpan<long> numbers = MemoryMarshal.Cast<byte, long>(sector);
        return numbers.IndexOfAnyExcept(numbers[0]) < 0 ? numbers[0] : null;
    }

    internal sealed class Value(long number)
    {
        public long Number { get; } = number;

        public bool IsComplete { get; set; }
    }
}
