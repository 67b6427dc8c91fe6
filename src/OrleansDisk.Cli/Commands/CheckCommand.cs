using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Cli.Opening;
using OrleansDisk.Cli.Output;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Check;
using OrleansDisk.Qcow2.Check.Repair;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Cli.Commands;

/// <summary>odisk check: is an image consistent?</summary>
internal static class CheckCommand
{
    private const int CheckFailed = 1;
    private const int HasCorruptions = 2;
    private const int HasLeaks = 3;
    private const int NotSupported = 63;

    private const string Help = """
          -f, --format=FORMAT qcow2; found out when not given
          --output=FORMAT     human (default) or json
          -q                  print findings only
          -r, --repair=WHAT   leaks: free lost clusters; all: repair what can be repaired
          -T CACHE            cache mode: writeback (default), none, writethrough, directsync, unsafe
          -U, --force-share   check the image even while someone writes it
          --image-opts        FILE is a list of options: driver=qcow2,file.filename=...
          --object OBJECT     secret,id=ID,data=TEXT|file=FILE,format=raw|base64

        Exit code: 0 consistent, 1 the check could not be done, 2 corrupt, 3 leaked clusters only,
        63 the format can't be checked. A repair that is interrupted does no harm: repair again.
        """;

    public static Command Command { get; } = new(
        "check", "Test whether an image is consistent", Help,
        [
            Command.LongFormatOption, Command.OutputOption, Command.QuietOption, Command.ShareOption,
            Command.ImageOptsOption, Command.ObjectOption,
            new OptionSpec('r', "repair", HasValue: true), new OptionSpec('T', null, HasValue: true),
        ],
        RunAsync);

    private static async Task<int> RunAsync(ParsedOptions options, Terminal terminal)
    {
        bool isJson = Command.WantsJson(options);
        RepairKinds repair = ParseRepair(options.Value("repair"));
        string path = Command.SingleFile(options);
        CacheMode cache = Command.CacheOf(options.Value("T"), "source cache");
        await using OpenedFile opened = await OpenAsync(path, options, repair, cache);
        if (opened.Format != "qcow2")
        {
            terminal.Error("This image format does not support checks");
            return NotSupported;
        }
        (CheckReport report, RepairReport? repaired) = await CheckReadableAsync(path, opened.File, repair, options, isJson, terminal);
        if (!options.Has("q"))
            terminal.Write(isJson ? Json(path, report, repaired) : Human(report));
        if (report.CheckErrorCount > 0)
        {
            terminal.Flush();
            terminal.Error("Check failed");
            return CheckFailed;
        }
        return report.CorruptionCount > 0 ? HasCorruptions : report.LeakCount > 0 ? HasLeaks : 0;
    }

    private static RepairKinds ParseRepair(string? repair) => repair switch
    {
        null => RepairKinds.None,
        "leaks" => RepairKinds.Leaks,
        "all" => RepairKinds.All,
        _ => throw new CommandLineException($"Unknown option value for -r (expecting 'leaks' or 'all'): {repair}"),
    };

    private static async Task<OpenedFile> OpenAsync(string path, ParsedOptions options, RepairKinds repair, CacheMode cache)
    {
        if (repair != RepairKinds.None && options.Has("force-share"))
            throw new CommandFailedException($"Could not open '{path}': force-share=on can only be used with read-only images");
        ImageAccess access = repair == RepairKinds.None ? ImageAccess.Read : ImageAccess.Write;
        return await Command.OpeningAsync(path, () => DiskOpener.OpenFileAsync(Command.RequestOf(options, path, access) with { Cache = cache }));
    }

    private static async Task<(CheckReport Report, RepairReport? Repaired)> CheckReadableAsync(
        string path, IBlockFile file, RepairKinds repair, ParsedOptions options, bool isJson, Terminal terminal)
    {
        try
        {
            return await CheckAsync(path, file, repair, options, isJson, terminal);
        }
        catch (SnapshotTableException e)
        {
            terminal.Error(e.Message);
            throw new CommandFailedException($"Check failed: {e.Reason}");
        }
    }

    /// <summary>Checks, or repairs and checks what came of it.</summary>
    private static async Task<(CheckReport Report, RepairReport? Repaired)> CheckAsync(
        string path, IBlockFile file, RepairKinds repair, ParsedOptions options, bool isJson, Terminal terminal)
    {
        var checkOptions = new CheckOptions { OnFinding = f => Terminal.WriteError(f.Message), MaxKeptFindings = 0 };
        if (repair == RepairKinds.None)
            return (await Command.OpeningAsync(path, () => ImageCheck.RunAsync(file, checkOptions)), null);
        RepairFailedException? failure = null;
        RepairReport? repaired = await Command.OpeningAsync(path, async () =>
        {
            try
            {
                return await ImageRepair.RunAsync(file, repair, checkOptions);
            }
            catch (RepairFailedException e)
            {
                failure = e;
                return null;
            }
        });
        if (repaired is null)
            throw new CommandFailedException("Check failed: Input/output error", failure!.Message);
        if (!repaired.HasChanged)
            return (repaired.Check, repaired);
        if (!isJson && !options.Has("q"))
        {
            terminal.Write($"""
                The following inconsistencies were found and repaired:

                    {repaired.LeaksFixed} leaked clusters
                    {repaired.CorruptionsFixed} corruptions

                Double checking the fixed image now...

                """);
            terminal.Flush();
        }
        return (await ImageCheck.RunAsync(file, checkOptions), repaired);
    }

    private static string Human(CheckReport report)
    {
        string text = report.IsConsistent ? "No errors were found on the image.\n" : "";
        if (report.CorruptionCount > 0)
        {
            text += $"\n{report.CorruptionCount} errors were found on the image.\n"
                + "Data may be corrupted, or further writes to the image may corrupt it.\n";
        }
        if (report.LeakCount > 0)
        {
            text += $"\n{report.LeakCount} leaked clusters were found on the image.\n"
                + "This means waste of disk space, but no harm to data.\n";
        }
        if (report.CheckErrorCount > 0)
            text += $"\n{report.CheckErrorCount} internal errors have occurred during the check.\n";
        if (report.TotalClusters > 0 && report.AllocatedClusters > 0)
        {
            text += $"{report.AllocatedClusters}/{report.TotalClusters} = "
                + $"{NumberText.Percentage(report.AllocatedClusters, report.TotalClusters)}% allocated, "
                + $"{NumberText.Percentage(report.FragmentedClusters, report.AllocatedClusters)}% fragmented, "
                + $"{NumberText.Percentage(report.CompressedClusters, report.AllocatedClusters)}% compressed clusters\n";
        }
        return report.ImageEndOffset > 0 ? $"{text}Image end offset: {report.ImageEndOffset}\n" : text;
    }

    /// <summary>The keys come in the order in which QEMU's tables hold them; counts of 0 are left out.</summary>
    private static string Json(string path, CheckReport report, RepairReport? repaired)
    {
        JsonText json = new JsonText().Begin();
        AddCount("image-end-offset", report.ImageEndOffset);
        AddCount("compressed-clusters", report.CompressedClusters);
        AddCount("total-clusters", report.TotalClusters);
        AddCount("corruptions", report.CorruptionCount);
        AddCount("corruptions-fixed", repaired?.CorruptionsFixed ?? 0);
        json.Value("check-errors", report.CheckErrorCount);
        AddCount("leaks", report.LeakCount);
        AddCount("leaks-fixed", repaired?.LeaksFixed ?? 0);
        AddCount("allocated-clusters", report.AllocatedClusters);
        json.Value("filename", path).Value("format", "qcow2");
        AddCount("fragmented-clusters", report.FragmentedClusters);
        return json.End() + "\n";

        void AddCount(string name, long count)
        {
            if (count != 0)
                json.Value(name, count);
        }
    }
}
