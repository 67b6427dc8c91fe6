using System.Globalization;
using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Cli.Opening;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Cli.Commands;

/// <summary>What a convert command was given, as far as it can be told to be right without opening anything.</summary>
internal sealed class ConvertArguments
{
    private const int SectorBytes = 512;
    private const int MaxSparseBytes = 16 << 20;
    private const int MaxParallelCount = 16;

    public required ParsedOptions Options { get; init; }

    public required IReadOnlyList<DiskRequest> Sources { get; init; }

    /// <summary>The last operand.</summary>
    public required string Target { get; init; }

    /// <summary>What -O says, "raw" without it; null when the target's options say it.</summary>
    public required string? TargetFormat { get; init; }

    public required Secrets Secrets { get; init; }

    public int SparseBytes { get; private init; } = 4 << 10;

    public int ParallelCount { get; private init; } = 8;

    /// <summary>Bytes a second, or 0.</summary>
    public long Rate { get; private init; }

    /// <summary>Whether -o help was given.</summary>
    public bool AsksForHelp { get; private init; }

    public bool Compresses => Options.Has("c");

    /// <summary>Whether the source's bitmaps are copied, too.</summary>
    public bool CopiesBitmaps => Options.Has("bitmaps");

    /// <summary>Whether bitmaps that mean nothing are left out rather than an error.</summary>
    public bool SkipsBrokenBitmaps => Options.Has("skip-broken-bitmaps");

    public bool SkipsCreation => Options.Has("n");

    /// <exception cref="CommandFailedException">Something can't be had, or not together with something else.</exception>
    public static ConvertArguments Parse(ParsedOptions options)
    {
        CreationOptions.ValidateLists(options.Values("o"));
        int sparseBytes = options.Value("S") is { } sparse ? ParseSparse(sparse) : 4 << 10;
        int parallelCount = options.Value("m") is { } count ? ParseCount(count) : 8;
        long rate = options.Value("r") is { } text ? SizeText.Parse("rate limit", text) : 0;
        RefuseCombinations(options);
        bool asksForHelp = options.Values("o").Any(CreationOptions.AsksForHelp);
        if (!asksForHelp && options.Operands.Count < 2)
            throw new CommandFailedException("Must specify image file name");
        CacheMode sourceCache = Command.CacheOf(options.Value("T"), "source cache");
        _ = Command.CacheOf(options.Value("t"));
        var secrets = Secrets.Parse(options.Values("object"));
        SnapshotSelector? snapshot = SnapshotView.Of(options);
        if (snapshot is not null && options.Operands.Count > 2)
            throw new CommandFailedException("No support for concatenating multiple snapshot");
        if (options.Has("bitmaps") && options.Operands.Count > 2)
            throw new CommandFailedException("Copying bitmaps only possible with single source");
        return new ConvertArguments
        {
            Options = options,
            Sources = asksForHelp ? [] : [.. options.Operands.SkipLast(1).Select(
                operand => Command.RequestOf(options, operand, ImageAccess.Read) with { Snapshot = snapshot, Cache = sourceCache })],
            Target = asksForHelp ? "" : options.Operands[^1],
            TargetFormat = options.Value("O") ?? (options.Has("target-image-opts") ? null : "raw"),
            Secrets = secrets,
            SparseBytes = sparseBytes,
            ParallelCount = parallelCount,
            Rate = rate,
            AsksForHelp = asksForHelp,
        };
    }

    private static int ParseSparse(string text)
    {
        const string what = "buffer size for sparse output";
        long bytes = SizeText.Parse(what, text);
        if (bytes % SectorBytes != 0 || bytes > MaxSparseBytes)
        {
            throw new CommandFailedException($"Invalid {what} specified. Valid sizes are multiples of {SectorBytes} up to "
                + $"{MaxSparseBytes}. Select 0 to disable sparse detection (fully allocates output).");
        }
        return (int)bytes;
    }

    private static int ParseCount(string text) =>
        int.TryParse(text, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out int count) && count is >= 1 and <= MaxParallelCount
            ? count : throw new CommandFailedException(
                $"Invalid number of coroutines. Allowed number of coroutines is between 1 and {MaxParallelCount}");

    private static void RefuseCombinations(ParsedOptions options)
    {
        (bool IsGiven, string Message)[] refused =
        [
            (options.Has("c") && options.Has("C"), "Cannot enable copy offloading when -c is used"),
            (options.Has("S") && options.Has("C"), "Cannot enable copy offloading when -S is used"),
            (options.Has("C") && options.Has("salvage"), "Cannot use copy offloading in salvaging mode"),
            (options.Has("target-image-opts") && !options.Has("n"), "--target-image-opts requires use of -n flag"),
            (options.Has("n") && options.Has("o"), "-o has no effect when skipping image creation"),
            (options.Has("target-is-zero") && !options.Has("n"), "--target-is-zero requires use of -n flag"),
            (options.Has("skip-broken-bitmaps") && !options.Has("bitmaps"), "Use of --skip-broken-bitmaps requires --bitmaps"),
        ];
        foreach ((bool isGiven, string message) in refused)
        {
            if (isGiven)
                throw new CommandFailedException(message);
        }
    }
}
