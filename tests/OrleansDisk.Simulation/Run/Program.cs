using System.Diagnostics;
using System.Globalization;

namespace OrleansDisk.Simulation.Run;

/// <summary>The simulator as a program: `./build.sh simulate`.</summary>
internal static class Program
{
    private const int Passed = 0;
    private const int Failed = 1;
    private const int BadUsage = 64;
    private const string Usage = """
        usage: ./build.sh simulate [--seconds N] [--from SEED] [--seeds COUNT] [--threads N] [--seed SEED [--operations LIST]]
          Runs seeds until told to stop (Ctrl-C), for N seconds or for COUNT seeds. A failure ends it: it is shrunk and printed.
          --seed SEED runs one seed; --operations 3,17,40 just these of its operations.
        """;

    public static int Main(string[] arguments)
    {
        Dictionary<string, string> options = [];
        for (int i = 0; i < arguments.Length; i += 2)
        {
            bool isKnown = arguments[i] is "--seconds" or "--from" or "--seeds" or "--threads" or "--seed" or "--operations";
            if (!isKnown || i + 1 == arguments.Length)
            {
                Console.Error.WriteLine(Usage);
                return BadUsage;
            }
            options[arguments[i]] = arguments[i + 1];
        }
        return options.ContainsKey("--seed") ? RunOne(options) : RunMany(options);
    }

    private static int RunOne(Dictionary<string, string> options)
    {
        var plan = SimulationPlan.FromSeed(Number(options, "--seed", 0));
        var limits = new SimulationLimits();
        if (!options.TryGetValue("--operations", out string? list))
        {
            return Report(() => new SimulationRun(plan, limits).Run(), e => FailureReport.Describe(plan, limits, e));
        }
        int[] operations = [.. list.Split(',', StringSplitOptions.RemoveEmptyEntries).Select(index => int.Parse(index, CultureInfo.InvariantCulture))];
        SimulationPlan shrunk = plan with { Operations = [.. operations.Select(index => plan.Operations[index])] };
        return Report(() => new SimulationRun(shrunk, limits).Run(), e => e.ToString());
    }

    private static int Report(Func<SimulationResult> run, Func<Exception, string> describe)
    {
        try
        {
            SimulationResult result = run();
            Console.WriteLine($"passed: {result.Counts.States} crash states at {result.Counts.Barriers} barriers, trace {result.TraceHash:x16}");
            return Passed;
        }
        catch (Exception e)
        {
            Console.WriteLine(describe(e));
            return Failed;
        }
    }

    private static int RunMany(Dictionary<string, string> options)
    {
        int from = Number(options, "--from", 1);
        int seconds = Number(options, "--seconds", int.MaxValue / 1000);
        int count = Number(options, "--seeds", int.MaxValue - from);
        int threads = Number(options, "--threads", Environment.ProcessorCount);
        var limits = new SimulationLimits();
        var run = new SeedRun(from, limits);
        var clock = Stopwatch.StartNew();
        bool isStopped = false;
        Console.CancelKeyPress += (_, stop) => stop.Cancel = isStopped = true;
        using (new Timer(_ => Print(run, clock), null, TimeSpan.FromSeconds(10), TimeSpan.FromSeconds(10)))
            run.Run(threads, seed => !isStopped && seed - from < count && clock.Elapsed.TotalSeconds < seconds);
        Print(run, clock);
        foreach ((string name, long times) in run.Events)
            Console.WriteLine($"  {times,12} x {name}");
        if (run.Failed is not { } failed)
            return Passed;
        Console.WriteLine($"seed {failed.Plan.Seed} failed; shrinking ...");
        Console.WriteLine(FailureReport.Describe(failed.Plan, limits, failed.Failure));
        return Failed;
    }

    private static void Print(SeedRun run, Stopwatch clock) => Console.WriteLine(
        $"{clock.Elapsed.TotalSeconds,6:F0} s: {run.SeedCount} seeds ({run.TwiceCount} twice), {run.Counts.Barriers} barriers, "
        + $"{run.Counts.States} crash states ({run.Counts.States / clock.Elapsed.TotalSeconds:F0} a second), "
        + $"{run.Counts.Examined} with metadata of their own, {run.Counts.Recovered} recovered and crashed again, {run.Counts.JudgedByQemu} judged by QEMU");

    private static int Number(Dictionary<string, string> options, string name, int otherwise) =>
        options.TryGetValue(name, out string? value) ? int.Parse(value, CultureInfo.InvariantCulture) : otherwise;
}
