using System.Globalization;
using System.IO.Enumeration;

namespace OrleansDisk.Bench.Results;

/// <summary>A target for the daemon and what came of it.</summary>
/// <param name="Server">The server that it is compared with.</param>
/// <param name="Least">The ratio to reach.</param>
/// <param name="Ratio">The ratio that was reached.</param>
internal readonly record struct Verdict(string Server, double Least, double Ratio)
{
    // A ratio is printed with two digits, and counts as it is printed.
    public bool IsMet => Math.Round(Ratio, 2) >= Least;
}

/// <summary>The lines of targets.txt.</summary>
internal sealed class Targets
{
    private readonly record struct Line(string Pattern, string Server, double Least);

    private readonly List<Line> _lines = [];

    public static Targets Load(string path)
    {
        var targets = new Targets();
        foreach (string line in File.ReadLines(path))
        {
            string[] words = line.Split('#')[0].Split(' ', StringSplitOptions.RemoveEmptyEntries);
            if (words.Length == 3)
                targets._lines.Add(new Line(words[0], words[1], double.Parse(words[2], CultureInfo.InvariantCulture)));
            else if (words.Length > 0)
                throw new FormatException($"{path}: '{line}' has {words.Length} words; a target has 3");
        }
        return targets;
    }

    /// <summary>What came of the targets for a workload; those to servers that were not measured are left out.</summary>
    public IReadOnlyList<Verdict> Judge(Row row)
    {
        var verdicts = new List<Verdict>();
        foreach (string server in _lines.Select(l => l.Server).Distinct())
        {
            Line line = _lines.Find(l => l.Server == server && FileSystemName.MatchesSimpleExpression(l.Pattern, row.Workload.Key));
            if (line.Pattern is not null && row.RatioTo(server) is { } ratio)
                verdicts.Add(new Verdict(server, line.Least, ratio));
        }
        return verdicts;
    }
}
