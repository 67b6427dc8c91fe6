using System.Numerics;

namespace OrleansDisk.Qcow2.Operations;

/// <summary>A part of a buffer that is data, or zeros all through.</summary>
internal readonly record struct ScannedRun(int Start, int Bytes, bool IsZero);

/// <summary>Finds the zeros in a buffer that are worth leaving out.</summary>
internal static class ZeroScan
{
    private const int SectorBytes = 512;

    /// <summary>
    /// Divides a buffer into runs of data and of zeros. They meet at multiples of the largest power of two in
    /// <paramref name="sparseBytes"/>; zeros between data that are fewer than that many are data, too.
    /// </summary>
    /// <param name="buffer">What is looked through.</param>
    /// <param name="offset">Its place on the disk.</param>
    /// <param name="sparseBytes">The smallest run of zeros, or 0: all is data.</param>
    /// <param name="runs">Takes the runs.</param>
    public static void Divide(ReadOnlySpan<byte> buffer, long offset, int sparseBytes, List<ScannedRun> runs)
    {
        runs.Clear();
        if (sparseBytes == 0)
        {
            runs.Add(new ScannedRun(0, buffer.Length, IsZero: false));
            return;
        }
        int unit = Math.Max(SectorBytes, 1 << BitOperations.Log2((uint)sparseBytes));
        for (int at = 0; at < buffer.Length;)
        {
            int bytes = Math.Min(unit - (int)((offset + at) & (unit - 1)), buffer.Length - at);
            bool isZero = !buffer.Slice(at, bytes).ContainsAnyExcept((byte)0);
            Add(runs, new ScannedRun(at, bytes, isZero), sparseBytes);
            at += bytes;
        }
    }

    private static void Add(List<ScannedRun> runs, ScannedRun next, int sparseBytes)
    {
        if (runs.Count == 0)
        {
            runs.Add(next);
            return;
        }
        ScannedRun last = runs[^1];
        if (last.IsZero == next.IsZero)
        {
            runs[^1] = last with { Bytes = last.Bytes + next.Bytes };
            return;
        }
        bool isBetweenData = last.IsZero && runs.Count > 1;
        if (isBetweenData && last.Bytes < sparseBytes)
        {
            runs.RemoveAt(runs.Count - 1);
            runs[^1] = runs[^1] with { Bytes = runs[^1].Bytes + last.Bytes + next.Bytes };
            return;
        }
        runs.Add(next);
    }
}
