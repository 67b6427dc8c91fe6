using System.Globalization;
using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Cli.Opening;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Cli.Commands;

/// <summary>What odisk bench was asked to do. Offsets and sizes are bytes.</summary>
internal sealed record BenchOptions
{
    private const int DefaultCount = 75_000;
    private const int DefaultDepth = 64;
    private const int DefaultRequestBytes = 4096;

    public required string File { get; init; }

    public string? Format { get; init; }

    public bool Writes { get; init; }

    public int Count { get; init; }

    /// <summary>Requests under way at once, at least 1.</summary>
    public int Depth { get; init; }

    public long Offset { get; init; }

    public int RequestBytes { get; init; }

    public int StepBytes { get; init; }

    public byte Pattern { get; init; }

    /// <summary>Writes between two flushes; 0 for no flush.</summary>
    public int FlushInterval { get; init; }

    /// <summary>Whether a flush waits for the writes before it.</summary>
    public bool DrainsBeforeFlush { get; init; }

    /// <summary>Whether every write is on stable storage before it counts as done (writethrough).</summary>
    public bool Fua { get; init; }

    /// <summary>Whether the host's page cache is passed by (none, directsync).</summary>
    public bool IsDirect { get; init; }

    /// <summary>Whether flushes are left out (unsafe).</summary>
    public bool IgnoresFlush { get; init; }

    /// <exception cref="CommandLineException">The operand is missing.</exception>
    /// <exception cref="CommandFailedException">A value means nothing, or something that this version does not have.</exception>
    public static BenchOptions From(ParsedOptions options)
    {
        string cache = options.Value("t") ?? "writeback";
        var mode = CacheMode.Parse(cache, _ => "Invalid cache mode");
        CheckAio(options, mode);
        int requestBytes = Size(options.Value("s"), "buffer size") ?? DefaultRequestBytes;
        var read = new BenchOptions
        {
            Format = options.Value("f"),
            Writes = options.Has("w"),
            Count = Number(options.Value("c"), "request count", 0, int.MaxValue) ?? DefaultCount,
            Depth = Number(options.Value("d"), "queue depth", 1, int.MaxValue) ?? DefaultDepth,
            Offset = Bytes(options.Value("o"), "offset", long.MaxValue) ?? 0,
            RequestBytes = requestBytes,
            StepBytes = Size(options.Value("S"), "step_size") is { } step and > 0 ? step : requestBytes,
            Pattern = (byte)(Number(options.Value("pattern"), "pattern byte", 0, byte.MaxValue) ?? 0),
            FlushInterval = Number(options.Value("flush-interval"), "flush interval", 0, int.MaxValue) ?? 0,
            DrainsBeforeFlush = !options.Has("no-drain"),
            Fua = mode.Writethrough,
            IgnoresFlush = mode.NoFlush,
            IsDirect = mode.Direct,
            File = Command.SingleFile(options),
        };
        if (read.FlushInterval > 0 && !read.Writes)
            throw new CommandFailedException("--flush-interval is only available in write tests");
        if (read.FlushInterval > 0 && read.FlushInterval < read.Depth)
            throw new CommandFailedException("Flush interval can't be smaller than depth");
        return read;
    }

    private static void CheckAio(ParsedOptions options, CacheMode mode)
    {
        string? aio = options.Has("n") ? "native" : options.Value("i");
        if (aio == "io_uring")
            throw new CommandFailedException("aio option 'io_uring' is not supported by this version; use threads");
        if (aio is not (null or "native" or "threads"))
            throw new CommandFailedException($"Invalid aio option: {aio}");
        if (!mode.Direct && aio == "native")
        {
            throw new CommandFailedException($"Could not open '{Command.SingleFile(options)}': "
                + "aio=native was specified, but it requires cache.direct=on, which was not specified.");
        }
    }

    /// <summary>A number as C reads one: decimal, or hexadecimal behind 0x.</summary>
    private static int? Number(string? text, string what, int least, int greatest)
    {
        if (text is null)
            return null;
        string digits = text.TrimStart();
        bool isNumber = digits.StartsWith("0x", StringComparison.OrdinalIgnoreCase)
            ? long.TryParse(digits.AsSpan(2), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out long number)
            : long.TryParse(digits, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out number);
        return isNumber && number >= least && number <= greatest
            ? (int)number : throw new CommandFailedException($"Invalid {what} specified");
    }

    private static int? Size(string? text, string what) => (int?)Bytes(text, what, int.MaxValue);

    private static long? Bytes(string? text, string what, long greatest)
    {
        if (text is null)
            return null;
        ByteSizeResult result = ByteSize.TryParse(text, out ulong bytes);
        if (result == ByteSizeResult.TooLarge || bytes > (ulong)greatest)
            throw new CommandFailedException($"Invalid {what} specified. Must be between 0 and {greatest}.");
        if (result == ByteSizeResult.NotANumber)
        {
            throw new CommandFailedException($"Invalid {what} specified. You may use k, M, G, T, P or E suffixes for",
                "kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.");
        }
        return (long)bytes;
    }
}
