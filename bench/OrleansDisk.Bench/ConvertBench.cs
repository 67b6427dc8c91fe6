using System.Diagnostics;
using System.Globalization;
using OrleansDisk.Bench.Tools;

namespace OrleansDisk.Bench;

/// <summary>odisk convert and compare beside qemu-img, with the options that make each of them fastest, in a tmpfs.</summary>
internal sealed class ConvertBench(BenchOptions options, Workspace workspace)
{
    private const int MiB = 1 << 20;
    private const int DiskMiB = 4096;
    private const int TextMiB = 256;

    /// <summary>Data and holes take turns in pieces of this length: half of the disk is data.</summary>
    private const int PieceMiB = 8;

    private static readonly Comparison[] _comparisons =
    [
        new("raw to qcow2, 4 GiB, half of it data", 1.5, DiskMiB,
            ["convert", "-f", "raw", "-O", "qcow2", "-W", "-m", "16", "half.raw", "out"]),
        new("qcow2 to qcow2", 1.5, DiskMiB, ["convert", "-f", "qcow2", "-O", "qcow2", "-W", "-m", "16", "half.qcow2", "out"]),
        new("qcow2 to raw", null, DiskMiB, ["convert", "-f", "qcow2", "-O", "raw", "-W", "-m", "16", "half.qcow2", "out"]),
        new("raw to qcow2, zlib, 256 MiB", 2.5, TextMiB,
            ["convert", "-c", "-f", "raw", "-O", "qcow2", "-W", "-m", "8", "text.raw", "out"]),
        new("raw to qcow2, zstd, 256 MiB", 1.4, TextMiB,
            ["convert", "-c", "-f", "raw", "-O", "qcow2", "-o", "compression_type=zstd", "-W", "-m", "8", "text.raw", "out"]),
        new("compare raw with qcow2", null, DiskMiB, ["compare", "-f", "raw", "-F", "qcow2", "half.raw", "half.qcow2"]),
    ];

    /// <summary>One row of the table.</summary>
    /// <param name="Name">What is done.</param>
    /// <param name="Target">How much faster odisk is to be, or null.</param>
    /// <param name="SizeMiB">Size of the disk.</param>
    /// <param name="Arguments">Arguments of both programs.</param>
    private sealed record Comparison(string Name, double? Target, int SizeMiB, string[] Arguments);

    /// <summary>Prints the table.</summary>
    public async Task<int> RunAsync(CancellationToken cancellation)
    {
        await MakeDisksAsync(cancellation);
        Console.WriteLine($"{await Machine.DescribeHostAsync(cancellation)}. Medians of {options.Rounds} interleaved rounds; MiB of the disk in a second.\n");
        Console.WriteLine("| what | qemu-img | odisk | : qemu-img |");
        Console.WriteLine("|---|---|---|---|");
        foreach (Comparison comparison in _comparisons)
        {
            (double theirs, double ours) = await MeasureAsync(comparison, cancellation);
            double ratio = theirs / ours;
            string verdict = comparison.Target is not { } target ? "" : ratio >= target ? $" ✓ {Text(target)}" : $" ✗ {Text(target)}";
            Console.WriteLine($"| {comparison.Name} | {comparison.SizeMiB / theirs:F0} | {comparison.SizeMiB / ours:F0} | {ratio:F2}{verdict} |");
        }
        return 0;
    }

    private async Task<(double Theirs, double Ours)> MeasureAsync(Comparison comparison, CancellationToken cancellation)
    {
        var theirs = new List<double>();
        var ours = new List<double>();
        for (int round = 0; round < options.Rounds; round++)
        {
            bool isOdiskFirst = round % 2 == 1;
            if (isOdiskFirst)
                ours.Add(await TimeAsync(Repository.Odisk, comparison, cancellation));
            theirs.Add(await TimeAsync("qemu-img", comparison, cancellation));
            if (!isOdiskFirst)
                ours.Add(await TimeAsync(Repository.Odisk, comparison, cancellation));
        }
        return (Median(theirs), Median(ours));
    }

    private async Task<double> TimeAsync(string program, Comparison comparison, CancellationToken cancellation)
    {
        string[] arguments = [.. comparison.Arguments.Select(word => IsFile(word) ? InMemory(word) : word)];
        var time = Stopwatch.StartNew();
        await Tool.RunAsync(program, arguments, cancellation);
        double seconds = time.Elapsed.TotalSeconds;
        File.Delete(InMemory("out"));
        return seconds;
    }

    private async Task MakeDisksAsync(CancellationToken cancellation)
    {
        var random = new Random(1);
        byte[] piece = new byte[PieceMiB * MiB];
        await using (FileStream half = File.Create(InMemory("half.raw")))
        {
            half.SetLength((long)DiskMiB * MiB);
            for (int at = 0; at < DiskMiB; at += 2 * PieceMiB)
            {
                random.NextBytes(piece);
                half.Position = (long)at * MiB;
                await half.WriteAsync(piece, cancellation);
            }
        }
        await using (FileStream text = File.Create(InMemory("text.raw")))
        {
            for (int at = 0; at < TextMiB; at += PieceMiB)
            {
                FillCompressible(piece, random);
                await text.WriteAsync(piece, cancellation);
            }
        }
        await Tool.RunAsync("qemu-img", ["convert", "-O", "qcow2", InMemory("half.raw"), InMemory("half.qcow2")], cancellation);
    }

    /// <summary>Words from a small vocabulary, which get about three times smaller.</summary>
    private static void FillCompressible(byte[] piece, Random random)
    {
        byte[] words = new byte[4096];
        random.NextBytes(words);
        for (int at = 0; at < piece.Length;)
        {
            int bytes = Math.Min(random.Next(3, 10), piece.Length - at);
            words.AsSpan(random.Next(words.Length - bytes), bytes).CopyTo(piece.AsSpan(at));
            at += bytes;
        }
    }

    private static bool IsFile(string word) => word == "out" || word.EndsWith(".raw", StringComparison.Ordinal)
        || word.EndsWith(".qcow2", StringComparison.Ordinal);

    private string InMemory(string name) => Path.Combine(workspace.Memory, name);

    private static double Median(List<double> values)
    {
        values.Sort();
        return values[values.Count / 2];
    }

    private static string Text(double value) => value.ToString("0.0", CultureInfo.InvariantCulture);
}
