using System.Globalization;
using System.IO.Enumeration;
using OrleansDisk.Bench.Servers;
using OrleansDisk.Bench.Tools;
using OrleansDisk.Bench.Workloads;

namespace OrleansDisk.Bench;

/// <summary>What a run is asked to do.</summary>
internal sealed class BenchOptions
{
    public const string Usage = """
        usage: ./build.sh bench [compare] [OPTION...]   NBD servers side by side
               ./build.sh bench memory [--images N]     memory of odiskd with many open images
               ./build.sh bench tools                   odisk beside qemu-img: convert, check, snapshots ...
               ./build.sh bench micro [FILTER]          single steps, by BenchmarkDotNet
          --rounds N        rounds, of which medians are taken (default: 5)
          --seconds N       length of one measurement (default: 2)
          --load GENERATOR  fio (default), or light: 4 KiB requests alone, by a generator that costs less CPU than fio
          --only PATTERN    workloads whose key matches, for example 'memory-unix/*'; may be repeated
          --servers LIST    of qemu-nbd-io_uring, qemu-nbd-threads, qemu-storage-daemon, nbdkit, odisk, odiskd
          --dir FOLDER      where images of the workloads on a disk lie (default: an ext4 of its own, as root)
          --output FILE     write the report there as Markdown, between the marks of an earlier one if it has them
          --verify          no measurement: writes with fio's verification through odisk and odiskd, then qemu-img check
          --quick           one round of half a second
          --list            the keys of the workloads
          --no-publish      measure the programs in artifacts/publish as they are
          --install         get the Debian packages that are missing
        """;

    private const int DefaultImageCount = 100;

    private readonly List<string> _only = [];

    public string Verb { get; private set; } = "compare";

    public int Rounds { get; private set; } = 5;

    public TimeSpan Time { get; private set; } = TimeSpan.FromSeconds(2);

    public IReadOnlyList<ServerProgram> Servers { get; private set; } = ServerProgram.All;

    public string? Directory { get; private set; }

    public string? Output { get; private set; }

    /// <summary>Whether <see cref="LightLoad"/> takes the place of fio.</summary>
    public bool LoadIsLight { get; private set; }

    public bool Verifies { get; private set; }

    public bool Lists { get; private set; }

    /// <summary>Open images of the memory bench.</summary>
    public int ImageCount { get; private set; } = DefaultImageCount;

    public IEnumerable<Workload> Workloads => AllWorkloads.All.Where(w => _only.Count == 0
        || _only.Exists(pattern => FileSystemName.MatchesSimpleExpression(pattern, w.Key)))
        .Where(w => !LoadIsLight || LightShape.Of(w) is not null);

    /// <exception cref="BenchException">An option means nothing.</exception>
    public static BenchOptions Parse(IEnumerable<string> arguments)
    {
        var options = new BenchOptions();
        var words = new Queue<string>(arguments);
        if (words.TryPeek(out string? verb) && verb is "compare" or "memory" or "tools")
            options.Verb = words.Dequeue();
        while (words.TryDequeue(out string? option))
            options.Take(option, words);
        if (!options.Workloads.Any())
            throw new BenchException("no workload matches; --list shows their keys");
        return options;
    }

    private void Take(string option, Queue<string> words)
    {
        switch (option)
        {
            case "--rounds":
                Rounds = (int)Number(option, words);
                break;
            case "--seconds":
                Time = TimeSpan.FromSeconds(Number(option, words));
                break;
            case "--images":
                ImageCount = (int)Number(option, words);
                break;
            case "--load":
                LoadIsLight = Value(option, words) switch
                {
                    "fio" => false,
                    "light" => true,
                    string name => throw new BenchException($"--load is fio or light, not '{name}'"),
                };
                break;
            case "--only":
                _only.Add(Value(option, words));
                break;
            case "--servers":
                Servers = [.. Value(option, words).Split(',').Select(ServerOf)];
                break;
            case "--dir":
                Directory = Value(option, words);
                break;
            case "--output":
                Output = Value(option, words);
                break;
            case "--quick":
                (Rounds, Time) = (1, TimeSpan.FromSeconds(0.5));
                break;
            default:
                TakeSwitch(option);
                break;
        }
    }

    private void TakeSwitch(string option)
    {
        switch (option)
        {
            case "--verify":
                Verifies = true;
                break;
            case "--list":
                Lists = true;
                break;
            default:
                throw new BenchException($"'{option}' is no option\n{Usage}");
        }
    }

    private static ServerProgram ServerOf(string name) => ServerProgram.All.FirstOrDefault(s => s.Name == name)
        ?? throw new BenchException($"'{name}' is no server; there are {string.Join(", ", ServerProgram.All.Select(s => s.Name))}");

    private static double Number(string option, Queue<string> words)
    {
        string text = Value(option, words);
        return double.TryParse(text, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out double number) && number > 0
            ? number : throw new BenchException($"{option} needs a number above 0, not '{text}'");
    }

    private static string Value(string option, Queue<string> words) =>
        words.TryDequeue(out string? value) ? value : throw new BenchException($"{option} needs a value");
}
