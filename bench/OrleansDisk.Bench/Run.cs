using OrleansDisk.Bench.Results;
using OrleansDisk.Bench.Tools;
using OrleansDisk.Bench.Workloads;

namespace OrleansDisk.Bench;

/// <summary>One run of the program, from its options to its report.</summary>
internal sealed class Run(BenchOptions options, Workspace workspace)
{
    private readonly Images _images = new(workspace);

    /// <summary>Measures, prints and writes; gives the exit code.</summary>
    public async Task<int> ExecuteAsync(CancellationToken cancellation)
    {
        if (options.Verifies)
            return await new Verification(options, workspace, _images).RunAsync(cancellation);
        var report = new Report(Targets.Load(Path.Combine(AppContext.BaseDirectory, "targets.txt")))
        {
            Name = options.LoadIsLight ? "light" : "bench",
            Preface = await Machine.DescribeAsync(options, workspace, cancellation),
        };
        Console.WriteLine($"{report.Preface}\n");
        await CompareAsync(report, cancellation);
        await AllocationsAsync(report, cancellation);
        if (options.Output is not null)
            report.WriteTo(options.Output);
        return 0;
    }

    private async Task CompareAsync(Report report, CancellationToken cancellation)
    {
        var comparison = new Comparison(options, workspace, _images);
        Place? place = null;
        Console.WriteLine(Report.TableHead);
        foreach (Workload workload in options.Workloads)
        {
            if (place != workload.Place)
                _images.DiscardCopies();
            place = workload.Place;
            if (options.Servers.Any(s => !s.Supports(workload)))
                report.Note("Blank: the server does not have the cache mode (nbdkit's file plugin and odiskd have no cache=none).");
            Console.WriteLine(report.Add(await comparison.RunAsync(workload, cancellation)));
            if (options.Output is not null)
                report.WriteTo(options.Output); // an interrupted run keeps what it has
        }
        _images.DiscardCopies();
        Console.WriteLine($"\n{report.Summary()}");
    }

    private async Task AllocationsAsync(Report report, CancellationToken cancellation)
    {
        string section = await new ManagedAllocations(options, workspace, _images).MeasureAsync(cancellation);
        report.AddSection(section);
        Console.WriteLine($"\n{section}");
    }
}
