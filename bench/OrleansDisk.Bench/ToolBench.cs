using System.Diagnostics;
using System.Globalization;
using System.Text;
using OrleansDisk.Bench.Results;
using OrleansDisk.Bench.Tools;

namespace OrleansDisk.Bench;

/// <summary>odisk beside qemu-img, with the options that make each of them fastest, in a tmpfs.</summary>
internal sealed class ToolBench(BenchOptions options, Workspace workspace)
{
    private const int MiB = 1 << 20;
    private const int DiskMiB = 4096;
    private const int FilesMiB = 256;

    /// <summary>Data and holes take turns in pieces of this length: half of the disk is data.</summary>
    private const int PieceMiB = 8;

    /// <summary>Programs that a measurement of short ones starts one after the other.</summary>
    private const int RepeatCount = 20;

    private static readonly Comparison[] _comparisons =
    [
        Comparison.Of("convert raw to qcow2, 4 GiB, half of it data", 1.5, "convert -f raw -O qcow2 -W -m 16 half.raw out.qcow2"),
        Comparison.Of("convert qcow2 to qcow2", 1.5, "convert -f qcow2 -O qcow2 -W -m 16 half.qcow2 out.qcow2"),
        Comparison.Of("convert qcow2 to raw", null, "convert -f qcow2 -O raw -W -m 16 half.qcow2 out.raw"),
        Comparison.Of("convert -c, zlib, 256 MiB of /usr/lib", 2.5, "convert -c -f raw -O qcow2 -W -m 8 files.raw out.qcow2"),
        Comparison.Of("convert -c, zstd, 256 MiB of /usr/lib", 1.4, "convert -c -f raw -O qcow2 -o compression_type=zstd -W -m 8 files.raw out.qcow2"),
        Comparison.Of("convert -c, zlib, back to raw", null, "convert -f qcow2 -O raw -W -m 16 packed.qcow2 out.raw"),
        Comparison.Of("compare raw with qcow2", null, "compare -f raw -F qcow2 half.raw half.qcow2"),
        Comparison.Of("check 64 GiB of 4 KiB clusters", 3, "check -f qcow2 small-clusters.qcow2"),
        Comparison.Of("map 64 GiB of 4 KiB clusters", null, "map -f qcow2 small-clusters.qcow2"),
        Comparison.OfMany($"take {RepeatCount} snapshots, 1 TiB, 100,000 clusters", null, "snapshot -c s{0} thick.qcow2"),
        Comparison.OfMany($"delete {RepeatCount} snapshots", null, "snapshot -d s{0} thick.qcow2") with
        {
            Before = [.. Enumerable.Range(0, RepeatCount).Select(i => $"snapshot -c s{i} thick.qcow2")],
        },
        Comparison.OfMany($"info, {RepeatCount} times", 1, "info -f qcow2 files.qcow2"),
    ];

    private readonly StringBuilder _report = new();

    /// <summary>One row of the table.</summary>
    /// <param name="Name">What is done.</param>
    /// <param name="Target">How much faster odisk is to be, or null.</param>
    /// <param name="Commands">What both programs are run with, one after the other.</param>
    private sealed record Comparison(string Name, double? Target, IReadOnlyList<string> Commands)
    {
        /// <summary>What is run first and not measured.</summary>
        public IReadOnlyList<string> Before { get; init; } = [];

        public static Comparison Of(string name, double? target, string command) => new(name, target, [command]);

        public static Comparison OfMany(string name, double? target, string format) => new(
            name, target, [.. Enumerable.Range(0, RepeatCount).Select(i => string.Format(CultureInfo.InvariantCulture, format, i))]);
    }

    /// <summary>How long a measurement took, and the processors' time in it.</summary>
    private readonly record struct Cost(double Seconds, double Processor);

    /// <summary>Prints the table.</summary>
    public async Task<int> RunAsync(CancellationToken cancellation)
    {
        await MakeDisksAsync(cancellation);
        Print($"{await Machine.DescribeHostAsync(cancellation)}. Medians of {options.Rounds} interleaved rounds, in seconds, and in parentheses seconds of CPU.\n");
        Print("| what | qemu-img | odisk | times as fast | CPU, qemu-img : odisk |");
        Print("|---|---|---|---|---|");
        foreach (Comparison comparison in _comparisons)
        {
            (Cost theirs, Cost ours) = await MeasureAsync(comparison, cancellation);
            double ratio = theirs.Seconds / ours.Seconds;
            string verdict = comparison.Target is not { } target ? "" : ratio >= target ? $" ✓ {target:0.0}" : $" ✗ {target:0.0}";
            Print(string.Create(CultureInfo.InvariantCulture,
                $"| {comparison.Name} | {Text(theirs)} | {Text(ours)} | {ratio:F2}{verdict} | {theirs.Processor / ours.Processor:F2} |"));
        }
        Print($"\nFor comparison, cp of the raw disk: {Text(await MeasureCopyAsync(cancellation))}.");
        if (options.Output is not null)
            MarkedSection.Write(options.Output, "tools", _report.ToString());
        return 0;
    }

    private void Print(string line)
    {
        Console.WriteLine(line);
        _report.Append(line).Append('\n');
    }

    private async Task<(Cost Theirs, Cost Ours)> MeasureAsync(Comparison comparison, CancellationToken cancellation)
    {
        var theirs = new List<Cost>();
        var ours = new List<Cost>();
        for (int round = 0; round < options.Rounds; round++)
        {
            bool isOdiskFirst = round % 2 == 1;
            if (isOdiskFirst)
                ours.Add(await MeasureAsync(Repository.Odisk, comparison, cancellation));
            theirs.Add(await MeasureAsync("qemu-img", comparison, cancellation));
            if (!isOdiskFirst)
                ours.Add(await MeasureAsync(Repository.Odisk, comparison, cancellation));
        }
        return (Median(theirs), Median(ours));
    }

    /// <summary>What the kernel takes for a copy of the same data, whatever the format.</summary>
    private async Task<Cost> MeasureCopyAsync(CancellationToken cancellation)
    {
        var costs = new List<Cost>();
        for (int round = 0; round < options.Rounds; round++)
            costs.Add(await MeasureAsync("cp", Comparison.Of("", null, "--reflink=never half.raw out.raw"), cancellation));
        return Median(costs);
    }

    private async Task<Cost> MeasureAsync(string program, Comparison comparison, CancellationToken cancellation)
    {
        // What a program changes, it changes in a copy of its own.
        await Tool.RunAsync("cp", ["--sparse=always", InMemory("thick.master"), InMemory("thick.qcow2")], cancellation);
        foreach (string command in comparison.Before)
            await RunAsync(program, command, cancellation);
        TimeSpan before = ChildProcesses.ProcessorTime;
        var time = Stopwatch.StartNew();
        foreach (string command in comparison.Commands)
            await RunAsync(program, command, cancellation);
        var cost = new Cost(time.Elapsed.TotalSeconds, (ChildProcesses.ProcessorTime - before).TotalSeconds);
        File.Delete(InMemory("out.raw"));
        File.Delete(InMemory("out.qcow2"));
        return cost;
    }

    private Task<string> RunAsync(string program, string command, CancellationToken cancellation) =>
        Tool.RunAsync(program, command.Split(' ').Select(word => IsFile(word) ? InMemory(word) : word), cancellation);

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
        await using (FileStream files = File.Create(InMemory("files.raw")))
            await CopyFilesAsync(files, cancellation);
        string[] preparations =
        [
            "convert -f raw -O qcow2 half.raw half.qcow2",
            "convert -f raw -O qcow2 files.raw files.qcow2",
            "convert -c -f raw -O qcow2 -W -m 8 files.raw packed.qcow2",
            "create -f qcow2 -o cluster_size=4k,preallocation=metadata small-clusters.qcow2 64G",
            "create -f qcow2 -o preallocation=metadata thick.qcow2 6250M",
            "resize -f qcow2 thick.qcow2 1T",
        ];
        foreach (string preparation in preparations)
            await RunAsync("qemu-img", preparation, cancellation);
        File.Move(InMemory("thick.qcow2"), InMemory("thick.master"));
    }

    /// <summary>What disks are full of: the files of this system, one behind the other.</summary>
    private static async Task CopyFilesAsync(FileStream target, CancellationToken cancellation)
    {
        var options = new EnumerationOptions { RecurseSubdirectories = true, AttributesToSkip = FileAttributes.ReparsePoint };
        foreach (string path in Directory.EnumerateFiles("/usr/lib", "*", options).Order(StringComparer.Ordinal))
        {
            await using FileStream file = File.OpenRead(path);
            await file.CopyToAsync(target, cancellation);
            if (target.Length >= (long)FilesMiB * MiB)
                break;
        }
        target.SetLength((long)FilesMiB * MiB);
    }

    private static bool IsFile(string word) =>
        word.EndsWith(".raw", StringComparison.Ordinal) || word.EndsWith(".qcow2", StringComparison.Ordinal);

    private string InMemory(string name) => Path.Combine(workspace.Memory, name);

    private static Cost Median(List<Cost> costs) => new(Median(costs.Select(cost => cost.Seconds)), Median(costs.Select(cost => cost.Processor)));

    private static double Median(IEnumerable<double> values) => values.Order().ElementAt(values.Count() / 2);

    private static string Text(Cost cost) => string.Create(CultureInfo.InvariantCulture, $"{cost.Seconds:F2} ({cost.Processor:F2})");
}
