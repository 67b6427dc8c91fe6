using OrleansDisk.Cli.Tests.Tools;

namespace OrleansDisk.Cli.Tests.Commands;

public sealed class RebaseCommandTests : IDisposable
{
    private readonly TwinDirectories _twins = new();

    public RebaseCommandTests()
    {
        _twins.Prepare("create -q -f qcow2 base 8M");
        _twins.Change("base", "write -P 1 0 5M", "write -P 2 7M 1M");
        _twins.Prepare("create -q -f qcow2 -b base -F qcow2 middle 6M");
        _twins.Change("middle", "write -P 2 1M 1M", "write -z 3M 300k");
        _twins.Prepare("create -q -f qcow2 -b middle -F qcow2 top 9M");
        _twins.Change("top", "write -P 3 1500k 100k", "write -z 4M 64k");
        _twins.Prepare("create -q -f qcow2 other 12M");
        _twins.Change("other", "write -P 1 0 2M", "write -P 9 5M 7M");
        _twins.Prepare("create -q -f qcow2 short 1M");
        _twins.WriteRaw("raw", 2_000_100, (0, 2_000_100, 1));
    }

    public void Dispose() => _twins.Dispose();

    [Theory]
    [InlineData("-b base -F qcow2 top")]
    [InlineData("-b other -F qcow2 top")]
    [InlineData("-b short -F qcow2 top")]
    [InlineData("-b raw -F raw top")]
    [InlineData("-f qcow2 -b middle -F qcow2 top")]
    [InlineData("-t none -T none -q -b other -F qcow2 -U top")]
    public void The_disk_stays_what_it_was(string arguments)
    {
        Odisk.Run(_twins.Ours, "convert", "-O", "raw", "top", "before");
        Assert.Equal(0, _twins.Run(["rebase", .. arguments.Split(' ')]).ExitCode);
        _twins.AssertSameDisk("top", "qcow2");
        _twins.Run("info", "-U", "--backing-chain", "--output=json", "short");
        Assert.Equal("Images are identical.\n", ExternalTool.QemuImg(_twins.Ours, "compare", "-F", "raw", "top", "before").Output);
    }

    [Theory]
    [InlineData("cluster_size=64k")]
    [InlineData("cluster_size=4k")]
    [InlineData("extended_l2=on")]
    public void What_is_copied_can_be_compressed(string options)
    {
        _twins.Prepare($"create -q -f qcow2 -b middle -F qcow2 -o {options} packed 9000960");
        _twins.Change("packed", "write -P 8 100k 2k", "write -P 8 5M 70k");
        ExternalTool.QemuImg(_twins.Theirs, "rebase", "-b", "", "packed").Succeeded();
        Assert.Equal("", Odisk.Run(_twins.Ours, "rebase", "-c", "-b", "", "packed").Succeeded().Errors);
        _twins.AssertSameDisk("packed", "qcow2");
        Assert.DoesNotContain(" 0.00% compressed clusters", ExternalTool.QemuImg(_twins.Ours, "check", "packed").Output, StringComparison.Ordinal);
        Assert.True(new FileInfo(Path.Combine(_twins.Ours, "packed")).Length < new FileInfo(Path.Combine(_twins.Theirs, "packed")).Length);
    }

    [Theory]
    [InlineData("cluster_size=4k")]
    [InlineData("extended_l2=on")]
    [InlineData("compat=0.10")]
    public void An_image_of_any_kind_stands_alone_in_the_end(string options)
    {
        _twins.Prepare($"create -q -f qcow2 -b middle -F qcow2 -o {options} alone 9M");
        _twins.Change("alone", "write -P 8 100k 1k", "write -P 8 5M 70k");
        foreach (string directory in (string[])[_twins.Theirs, _twins.Ours])
            Assert.Equal("", Odisk.Run(directory, "rebase", "-b", "", "alone").Errors);
        _twins.AssertSameDisk("alone", "qcow2");
        ToolResult info = ExternalTool.QemuImg(_twins.Ours, "info", "alone");
        Assert.DoesNotContain("backing", info.Output, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("-u -b other -F qcow2 top")]
    [InlineData("-u -b nowhere -F raw top")]
    [InlineData("-u top")]
    public void The_name_alone_is_changed(string arguments)
    {
        Assert.Equal(0, _twins.Run(["rebase", .. arguments.Split(' ')]).ExitCode);
        _twins.Run("info", "--output=json", "middle");
        string ours = ExternalTool.QemuImg(_twins.Ours, "info", "-U", "top").Output;
        string theirs = ExternalTool.QemuImg(_twins.Theirs, "info", "-U", "top").Output;
        Assert.Equal(BackingOf(theirs, _twins.Theirs), BackingOf(ours, _twins.Ours));
    }

    [Theory]
    [InlineData("top")]
    [InlineData("-b nowhere -F qcow2 top")]
    [InlineData("-b other -F foo top")]
    [InlineData("-b other top")]
    [InlineData("-u -b other top")]
    [InlineData("-t foo -b other -F qcow2 top")]
    [InlineData("-T foo -b other -F qcow2 top")]
    [InlineData("-b other -F qcow2 nowhere")]
    [InlineData("")]
    public void What_cannot_be_is_refused_as_qemu_img_does(string arguments) => Assert.Equal(
        1, _twins.Run(["rebase", .. arguments.Split(' ', StringSplitOptions.RemoveEmptyEntries)]).ExitCode);

    private static List<string> BackingOf(string info, string directory) => [.. info.Split('\n')
        .Where(line => line.StartsWith("backing", StringComparison.Ordinal))
        .Select(line => line.Replace(directory, "", StringComparison.Ordinal))];
}
