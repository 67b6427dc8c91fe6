using OrleansDisk.Simulation.Crash;

namespace OrleansDisk.Simulation.Run;

/// <summary>Runs seeds one after the other on every core until time, seeds or luck run out.</summary>
internal sealed class SeedRun(int firstSeed, SimulationLimits limits)
{
    /// <summary>One seed in so many is run twice.</summary>
    private const int TwiceOneIn = 100;
    private readonly Lock _lock = new();
    private int _next = firstSeed;

    /// <summary>What all ended seeds looked at.</summary>
    public StateCounts Counts { get; } = new();

    /// <summary>Seeds that ended.</summary>
    public int SeedCount { get; private set; }

    /// <summary>Seeds that were run twice, with one trace.</summary>
    public int TwiceCount { get; private set; }

    /// <summary>The plan that failed first, and how.</summary>
    public (SimulationPlan Plan, Exception Failure)? Failed { get; private set; }

    /// <summary>How often each event of the fault table happened.</summary>
    public SortedDictionary<string, long> Events { get; } = [];

    /// <summary>Runs seeds while <paramref name="goesOn"/> says so; it is asked with each new seed.</summary>
    public void Run(int threadCount, Func<int, bool> goesOn)
    {
        Thread[] threads = [.. Enumerable.Range(0, threadCount).Select(_ => new Thread(() => RunSeeds(goesOn)))];
        foreach (Thread thread in threads)
            thread.Start();
        foreach (Thread thread in threads)
            thread.Join();
    }

    private void RunSeeds(Func<int, bool> goesOn)
    {
        while (Failed is null)
        {
            int seed = Interlocked.Increment(ref _next) - 1;
            if (!goesOn(seed))
                return;
            var plan = SimulationPlan.FromSeed(seed);
            try
            {
                SimulationResult result = new SimulationRun(plan, limits).Run();
                bool runsTwice = seed % TwiceOneIn == 0;
                if (runsTwice)
                    Compare(result, new SimulationRun(plan, limits).Run());
                Note(result, runsTwice);
            }
            catch (Exception e)
            {
                lock (_lock)
                    Failed ??= (plan, e);
            }
        }
    }

    private static void Compare(SimulationResult first, SimulationResult second)
    {
        if (first.TraceHash != second.TraceHash)
            throw new SimulationFailure("replay", $"two runs of one seed differ: {first.TraceHash:x} and {second.TraceHash:x}");
    }

    private void Note(SimulationResult result, bool ranTwice)
    {
        lock (_lock)
        {
            SeedCount++;
            TwiceCount += ranTwice ? 1 : 0;
            Counts.Add(result.Counts);
            foreach ((string name, int count) in result.Events)
                Events[name] = Events.GetValueOrDefault(name) + count;
        }
    }
}
