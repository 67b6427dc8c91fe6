using OrleansDisk.Cli.Tests.Tools;

namespace OrleansDisk.Cli.Tests.Commands;

public sealed class CommitCommandTests : IDisposable
{
    private readonly TwinDirectories _twins = new();

    public CommitCommandTests()
    {
        _twins.Prepare("create -q -f qcow2 base 8M");
        _twins.Change("base", "write -P 1 0 8M");
        _twins.Prepare("create -q -f qcow2 -b base -F qcow2 middle 6M");
        _twins.Change("middle", "write -P 2 1M 1M", "write -z 3M 300k");
        _twins.Prepare("create -q -f qcow2 -b middle -F qcow2 top 10M");
        _twins.Change("top", "write -P 3 1500k 100k", "write -z 4M 64k", "write -P 4 9M 70k");
    }

    public void Dispose() => _twins.Dispose();

    [Theory]
    [InlineData("top")]
    [InlineData("-q -f qcow2 top")]
    [InlineData("-d top")]
    [InlineData("-b base top")]
    [InlineData("-b middle top")]
    [InlineData("-r 1G -t none top")]
    [InlineData("--image-opts driver=qcow2,file.filename=top")]
    [InlineData("middle")]
    public void The_chain_holds_what_qemu_imgs_holds(string arguments)
    {
        Assert.Equal(0, _twins.Run(["commit", .. arguments.Split(' ')]).ExitCode);
        foreach (string image in (string[])["base", "middle", "top"])
            _twins.AssertSameDisk(image, "qcow2");
        string top = ExternalTool.QemuImg(_twins.Ours, "map", "--output=json", "top").Output;
        bool isKept = arguments.Contains("-d", StringComparison.Ordinal) || arguments.Contains("-b", StringComparison.Ordinal) || arguments == "middle";
        Assert.Equal(isKept, top.Contains("\"depth\": 0", StringComparison.Ordinal));
    }

    [Theory]
    [InlineData("cluster_size=512")]
    [InlineData("cluster_size=64k,extended_l2=on")]
    [InlineData("compat=0.10")]
    [InlineData("refcount_bits=1")]
    public void An_image_of_any_kind_is_emptied(string options)
    {
        _twins.Prepare($"create -q -f qcow2 -b base -F qcow2 -o {options} other 8M");
        _twins.Change("other", "write -P 5 0 300k", "write -P 6 5M 512", "write -P 7 6M 128k");
        Assert.Equal(0, _twins.Run("commit", "other").ExitCode);
        _twins.AssertSameDisk("base", "qcow2");
        _twins.AssertSameDisk("other", "qcow2");
        ToolResult map = ExternalTool.QemuImg(_twins.Ours, "map", "--output=json", "other");
        Assert.DoesNotContain("\"depth\": 0", map.Output, StringComparison.Ordinal);
    }

    [Fact]
    public void A_raw_backing_file_takes_the_data_and_grows()
    {
        _twins.WriteRaw("raw", 3_000_000, (0, 3_000_000, 1));
        _twins.Prepare("create -q -f qcow2 -b raw -F raw over 5M");
        _twins.Change("over", "write -P 5 100k 200k", "write -z 1M 1M", "write -P 6 4M 64k");
        Assert.Equal(0, _twins.Run("commit", "over").ExitCode);
        _twins.AssertSameDisk("raw", "raw");
        _twins.AssertSameDisk("over", "qcow2");
    }

    [Theory]
    [InlineData("base")]
    [InlineData("-b none top")]
    [InlineData("-b top top")]
    [InlineData("none")]
    [InlineData("-t foo top")]
    [InlineData("-r x top")]
    [InlineData("")]
    [InlineData("top middle")]
    public void What_cannot_be_is_refused_as_qemu_img_does(string arguments) => Assert.Equal(
        1, _twins.Run(["commit", .. arguments.Split(' ', StringSplitOptions.RemoveEmptyEntries)]).ExitCode);
}
