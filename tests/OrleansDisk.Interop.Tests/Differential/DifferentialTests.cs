using System.Globalization;
using OrleansDisk.Qcow2;

namespace OrleansDisk.Interop.Tests.Differential;

/// <summary>
/// The same seeded steps by this engine and by QEMU on twins of one image: the same disk, the same map but for what
/// docs/testing.md explains, and two images that both checkers find clean.
/// </summary>
public sealed class DifferentialTests
{
    private const int DefaultCount = 100;
    private const int SectorBytes = 512;

    [Fact]
    public async Task Twins_of_an_image_stay_twins_under_the_same_operations()
    {
        int first = Number("ODISK_TWIN_SEED", 1);
        int count = Number("ODISK_TWINS", Environment.GetEnvironmentVariable("ODISK_TWIN_SEED") is null ? DefaultCount : 1);
        var failures = new List<string>();
        for (int seed = first; seed < first + count && failures.Count < 10; seed++)
        {
            if (await FailureOfAsync(seed) is { } failure)
                failures.Add(failure);
        }
        Assert.True(failures.Count == 0, string.Join("\n\n", failures));
    }

    [Theory]
    [InlineData(1041)]
    [InlineData(1117)]
    [InlineData(1208)]
    public async Task Growing_past_the_end_of_a_longer_backing_file_writes_no_zeros_that_an_entry_can_say(int seed) =>
        Assert.Null(await FailureOfAsync(seed));

    private static async Task<string?> FailureOfAsync(int seed)
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        var scenario = new Scenario(seed, directory);
        try
        {
            await RunAsync(scenario, directory);
            return null;
        }
        catch (Exception e)
        {
            return $"{scenario.Description}\n  again: ODISK_TWIN_SEED={seed} dotnet test tests/OrleansDisk.Interop.Tests "
                + $"--filter DifferentialTests\n{e}\n  {string.Join("\n  ", scenario.Operations)}";
        }
    }

    private static async Task RunAsync(Scenario scenario, TemporaryDirectory directory)
    {
        string ours = directory.File("ours");
        string theirs = directory.File("theirs");
        Copy(scenario, ours);
        Copy(scenario, theirs);
        await Exclusive.Run(() => ApplyAsync(ours, scenario));
        ApplyWithQemu(theirs, scenario);

        Judge.ReadsAs(ours, scenario.Model);
        Judge.ReadsAs(theirs, scenario.Model);
        await Judge.FindsCleanAsync(ours);
        await Judge.FindsCleanAsync(theirs);
        CompareMaps(MapOfDisk.Read(ours), MapOfDisk.Read(theirs), scenario);
        if (!scenario.HasSnapshot)
            return;
        Tool.Run("qemu-img", "snapshot", "-a", "kept", ours);
        Tool.Run("qemu-img", "snapshot", "-a", "kept", theirs);
        Tool.Run("qemu-img", "compare", "-q", "-f", "qcow2", "-F", "qcow2", ours, theirs);
        await Judge.FindsCleanAsync(ours);
    }

    private static async Task ApplyAsync(string path, Scenario scenario)
    {
        Qcow2OpenOptions options = Disk.Writing(scenario.ClusterBytes) with { NotesAllZeroes = true };
        Qcow2Image image = await Qcow2Image.OpenAsync(path, options);
        try
        {
            foreach (Operation operation in scenario.Operations)
            {
                if (operation.Kind == OperationKind.Reopen)
                {
                    await image.CloseAsync();
                    image = await Qcow2Image.OpenAsync(path, options);
                    continue;
                }
                await operation.ApplyAsync(image);
            }
            byte[] read = new byte[image.VirtualBytes];
            await image.ReadAsync(0, read);
            int same = read.AsSpan().CommonPrefixLength(scenario.Model);
            Assert.True(same == scenario.Model.Length && same == read.Length, $"this engine differs from the model at 0x{same:x}");
        }
        finally
        {
            await image.CloseAsync();
        }
    }

    private static void ApplyWithQemu(string path, Scenario scenario)
    {
        var commands = new List<string>();
        foreach (Operation operation in scenario.Operations)
        {
            if (operation.SnapshotOption is not { } option)
            {
                commands.AddRange(operation.ForQemuIo(path));
                continue;
            }
            RunQemuIo(path, commands);
            commands.Clear();
            Tool.Run("qemu-img", "snapshot", option, operation.SnapshotName, path);
        }
        RunQemuIo(path, commands);
    }

    private static void RunQemuIo(string path, List<string> commands)
    {
        string output = Tool.Run(
            "qemu-io", ["-f", "qcow2", "-d", "unmap", .. commands.SelectMany(command => (string[])["-c", command]), path]);
        Assert.False(output.Contains("fail", StringComparison.OrdinalIgnoreCase) || output.Contains("error", StringComparison.OrdinalIgnoreCase),
            $"qemu-io:\n{output}");
    }

    /// <summary>Makes a twin, with a data file of its own if the image has one.</summary>
    private static void Copy(Scenario scenario, string path)
    {
        File.Copy(scenario.Image, path);
        if (scenario.DataFile is null)
            return;
        File.Copy(scenario.DataFile, $"{path}.data");
        Tool.Run("qemu-img", "amend", "-f", "qcow2", "-o", $"data_file={path}.data", path);
    }

    private static void CompareMaps(char[] ours, char[] theirs, Scenario scenario)
    {
        Assert.Equal(theirs.Length, ours.Length);
        for (int sector = 0; sector < ours.Length; sector++)
        {
            if (ours[sector] == theirs[sector])
                continue;
            long cluster = (long)sector * SectorBytes / scenario.ClusterBytes;
            Assert.True(scenario.FreelyZeroed.Contains(cluster),
                $"the maps differ at 0x{(long)sector * SectorBytes:x} (guest cluster {cluster}): '{ours[sector]}' here, '{theirs[sector]}' by QEMU");
        }
    }

    private static int Number(string variable, int otherwise) =>
        Environment.GetEnvironmentVariable(variable) is { } text ? int.Parse(text, CultureInfo.InvariantCulture) : otherwise;
}
