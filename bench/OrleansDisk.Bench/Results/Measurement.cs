namespace OrleansDisk.Bench.Results;

/// <summary>One round of one workload on one server, or the medians of several.</summary>
/// <param name="Rate">Requests in a second.</param>
/// <param name="ProcessorMicroseconds">The server's CPU time for a request, user and system.</param>
internal readonly record struct Measurement(double Rate, double ProcessorMicroseconds)
{
    public static Measurement Median(IReadOnlyCollection<Measurement> rounds) =>
        new(Median(rounds.Select(r => r.Rate)), Median(rounds.Select(r => r.ProcessorMicroseconds)));

    private static double Median(IEnumerable<double> values)
    {
        double[] sorted = [.. values.Order()];
        int middle = sorted.Length / 2;
        return sorted.Length % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
    }
}
