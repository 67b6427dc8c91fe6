using System.Globalization;
using System.Text;
using OrleansDisk.Bench.Servers;

namespace OrleansDisk.Bench.Results;

/// <summary>The Markdown that a run writes.</summary>
internal sealed class Report(Targets targets)
{
    private const string Missing = "";

    private readonly List<Row> _rows = [];
    private readonly List<string> _notes = [];
    private readonly List<string> _sections = [];

    /// <summary>What the marks of the report's part of a file say.</summary>
    public required string Name { get; init; }

    /// <summary>What stands above the table: one paragraph.</summary>
    public required string Preface { get; init; }

    public static string TableHead =>
        "| workload | qemu-nbd | qemu-storage-daemon | nbdkit, raw | odisk nbd | odiskd | : qemu-nbd | : nbdkit | : odisk |\n"
        + "|---|---|---|---|---|---|---|---|---|";

    /// <summary>Adds a line to the table and returns it.</summary>
    public string Add(Row row)
    {
        _rows.Add(row);
        return Line(row);
    }

    /// <summary>Adds a sentence below the table, once.</summary>
    public void Note(string sentence)
    {
        if (!_notes.Contains(sentence))
            _notes.Add(sentence);
    }

    /// <summary>Adds Markdown behind the targets.</summary>
    public void AddSection(string markdown) => _sections.Add(markdown);

    /// <summary>Targets met, of all; and a line for each that was missed.</summary>
    public string Summary()
    {
        (Row Row, Verdict Verdict)[] verdicts = [.. _rows.SelectMany(row => targets.Judge(row).Select(v => (row, v)))];
        var text = new StringBuilder($"Targets met: {verdicts.Count(v => v.Verdict.IsMet)} of {verdicts.Length}.");
        foreach ((Row row, Verdict verdict) in verdicts.Where(v => !v.Verdict.IsMet))
        {
            text.Append(CultureInfo.InvariantCulture,
                $"\n* missed: {row.Workload.Name}: {verdict.Ratio:0.00} of {verdict.Server}, the target is {verdict.Least}");
        }
        return text.ToString();
    }

    /// <summary>Writes everything so far into the part of a file that has the report's name.</summary>
    public void WriteTo(string path) => MarkedSection.Write(path, Name, Markdown());

    private string Markdown()
    {
        var text = new StringBuilder($"{Preface}\n\n");
        if (_rows.Count > 0)
        {
            text.Append(TableHead).Append('\n');
            foreach (Row row in _rows)
                text.Append(Line(row)).Append('\n');
            text.Append('\n');
            foreach (string note in _notes)
                text.Append(note).Append('\n');
            text.Append(Summary()).Append('\n');
        }
        foreach (string section in _sections)
            text.Append('\n').Append(section).Append('\n');
        return text.ToString();
    }

    private string Line(Row row)
    {
        IReadOnlyList<Verdict> verdicts = targets.Judge(row);
        return $"| {row.Workload.Name} | {Cell(row, ServerProgram.QemuNbdName)} | {Cell(row, ServerProgram.StorageDaemonName)} "
            + $"| {Cell(row, ServerProgram.NbdkitName)} | {Cell(row, ServerProgram.OdiskName)} | {Cell(row, ServerProgram.OdiskdName)} "
            + $"| {Ratio(row, verdicts, ServerProgram.QemuNbdName)} | {Ratio(row, verdicts, ServerProgram.NbdkitName)} "
            + $"| {Ratio(row, verdicts, ServerProgram.OdiskName)} |";
    }

    private static string Cell(Row row, string server)
    {
        if (row.Of(server) is not { } median)
            return Missing;
        string mode = server == ServerProgram.QemuNbdName && row.BestQemuNbd!.EndsWith("threads", StringComparison.Ordinal) ? " t" : "";
        return string.Create(CultureInfo.InvariantCulture, $"{median.Rate:0} ({median.ProcessorMicroseconds:0.0}){mode}");
    }

    private static string Ratio(Row row, IReadOnlyList<Verdict> verdicts, string server)
    {
        if (row.RatioTo(server) is not { } ratio)
            return Missing;
        string mark = "";
        foreach (Verdict verdict in verdicts.Where(v => v.Server == server))
            mark = string.Create(CultureInfo.InvariantCulture, $" {(verdict.IsMet ? '✓' : '✗')} {verdict.Least}");
        return string.Create(CultureInfo.InvariantCulture, $"{ratio:0.00}{mark}");
    }
}
