using System.Diagnostics;
using System.Globalization;
using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Cli.Output;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Concurrency;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Cli.Commands;

/// <summary>odisk bench: how long a series of requests takes, without a server in between.</summary>
internal static class BenchCommand
{
    private const string Help = """
          -c COUNT               requests (default: 75000)
          -d DEPTH               requests under way at once (default: 64)
          -f FORMAT              qcow2 or raw; found out when not given
          --flush-interval=N     flush behind every N writes, when all that were sent have ended
          --no-drain             flush without waiting for them
          -n                     native I/O, which this version does not have
          -i AIO                 threads, the only way of I/O in this version
          -o OFFSET              where the first request begins (default: 0)
          --pattern=BYTE         what is written (default: 0)
          -q                     accepted and without effect, as in qemu-img
          -s SIZE                bytes of a request (default: 4096)
          -S STEP                from one request to the next (default: SIZE); behind the end it starts over
          -t CACHE               writeback (default), writethrough or unsafe
          -w                     write; the disk's contents are lost
          -U, --force-share      open the image even while someone writes it
        """;

    public static Command Command { get; } = new(
        "bench", "Measure how fast an image is read or written", Help,
        [
            Command.FormatOption, Command.QuietOption, Command.ShareOption,
            new OptionSpec('c', null, HasValue: true), new OptionSpec('d', null, HasValue: true),
            new OptionSpec('\0', "flush-interval", HasValue: true), new OptionSpec('\0', "no-drain", HasValue: false),
            new OptionSpec('i', null, HasValue: true), new OptionSpec('n', null, HasValue: false),
            new OptionSpec('o', null, HasValue: true), new OptionSpec('\0', "pattern", HasValue: true),
            new OptionSpec('s', null, HasValue: true), new OptionSpec('S', null, HasValue: true),
            new OptionSpec('t', null, HasValue: true), new OptionSpec('w', null, HasValue: false),
        ],
        RunAsync);

    private static async Task<int> RunAsync(ParsedOptions parsed, Terminal terminal)
    {
        var options = BenchOptions.From(parsed);
        var turns = new ImageTurns();
        IBenchDisk disk = await Command.OpeningAsync(
            options.File, () => turns.RunAsync(() => OpenAsync(options, terminal, Command.ReadAccess(parsed))));
        TimeSpan time;
        try
        {
            terminal.WriteLine($"Sending {options.Count} {(options.Writes ? "write" : "read")} requests, {options.RequestBytes} bytes each, "
                + $"{options.Depth} in parallel (starting at offset {options.Offset}, step size {options.StepBytes})");
            if (options.FlushInterval > 0)
                terminal.WriteLine($"Sending flush every {options.FlushInterval} requests");
            terminal.Flush();
            var run = new BenchRun(options, disk);
            long start = Stopwatch.GetTimestamp();
            await turns.RunAsync(run.RunAsync);
            time = Stopwatch.GetElapsedTime(start);
        }
        finally
        {
            await turns.RunAsync(async () => await disk.DisposeAsync());
        }
        terminal.WriteLine(string.Create(CultureInfo.InvariantCulture, $"Run completed in {time.TotalSeconds:0.000} seconds."));
        return 0;
    }

    private static async Task<IBenchDisk> OpenAsync(BenchOptions options, Terminal terminal, ImageAccess readAccess)
    {
        if (options.Format is not (null or "qcow2" or "luks" or "raw"))
            throw new Qcow2Exception($"Unknown driver '{options.Format}'");
        ImageAccess access = options.Writes ? ImageAccess.Write : readAccess;
        if (options.Writes && readAccess == ImageAccess.ReadShared)
            throw new Qcow2Exception("force-share=on can only be used with read-only images");
        var file = LocalBlockFile.Open(options.File, access, options.IsDirect);
        try
        {
            string format = options.Format ?? await HeaderReader.ProbeFormatAsync(file);
            if (format == "qcow2")
                return new Qcow2BenchDisk(await Qcow2Image.OpenAsync(file, new Qcow2OpenOptions { Access = access, OpenFile = (path, below) => LocalBlockFile.Open(path, below, options.IsDirect) }));
            if (format == "luks")
                throw new Qcow2Exception("Parameter 'key-secret' is required for cipher");
            if (options.Format is null && options.Writes)
                WarnOfProbing(options.File, terminal);
            return new RawBenchDisk(file);
        }
        catch
        {
            await file.DisposeAsync();
            throw;
        }
    }

    /// <summary>A guest that can write the first bytes of a raw disk could make it look like an image of any kind.</summary>
    private static void WarnOfProbing(string file, Terminal terminal)
    {
        terminal.Flush();
        Terminal.WriteError($"WARNING: Image format was not specified for '{file}' and probing guessed raw.\n"
            + "         Automatically detecting the format is dangerous for raw images, write operations on block 0 will be restricted.\n"
            + "         Specify the 'raw' format explicitly to remove the restrictions.");
    }
}
