using System.Text.RegularExpressions;
using OrleansDisk.Cli.Tests.Tools;

namespace OrleansDisk.Cli.Tests.Commands;

public sealed partial class BenchCommandTests : IDisposable
{
    private readonly TemporaryDirectory _directory = new();

    public void Dispose() => _directory.Dispose();

    [Theory]
    [InlineData("-c 100")]
    [InlineData("-c 100 -q")]
    [InlineData("-c 100 -f qcow2 -U")]
    [InlineData("-c 0x20 -d 1")]
    [InlineData("-c +5")]
    [InlineData("-c 0")]
    [InlineData("-c 100 -o 1M -S 1M -s 64k")]
    [InlineData("-c 100 -o 100 -s 512")]
    [InlineData("-c 10 -s 0")]
    [InlineData("-c 10 -S 0")]
    [InlineData("-c 10 -i threads -t writeback --no-drain --pattern 0x41")]
    [InlineData("-c 10 -f raw")]
    public void Reading_an_image_prints_what_qemu_img_prints(string arguments)
    {
        Create("image");
        AssertSame(arguments, "image");
        AssertSound("image");
    }

    [Theory]
    [InlineData("-c 100 --pattern 7")]
    [InlineData("-c 300 -S 1M -s 12k --pattern 8 -o 3k")]
    [InlineData("-c 100 -d 5 --flush-interval=10 --pattern=9")]
    [InlineData("-c 100 -d 10 --flush-interval 10 --no-drain --pattern=9")]
    [InlineData("-c 20 -s 70000 -t writethrough --pattern 3")]
    [InlineData("-c 20 -d 1 --flush-interval=1 -t unsafe --pattern 3")]
    public void Writing_leaves_what_qemu_img_leaves(string arguments)
    {
        Create("image", "theirs");
        AssertSameWriting(arguments, "image", "theirs");
        AssertSound("image");
    }

    [Fact]
    public void A_raw_file_is_read_and_written()
    {
        Create("raw");
        ExternalTool.QemuImg(_directory.Directory, ["create", "-q", "-f", "raw", "image", "1000000"]).Succeeded();
        ExternalTool.QemuImg(_directory.Directory, ["create", "-q", "-f", "raw", "theirs", "1000000"]).Succeeded();
        AssertSame("-c 100 -f raw", "image");
        AssertSame("-c 100", "image");
        AssertSameWriting("-f raw -c 90 -s 10k --pattern 77", "image", "theirs");
        AssertSameWriting("-c 90 -s 10k --pattern 78 -d 2 --flush-interval=2", "image", "theirs");
    }

    [Fact]
    public void A_backing_file_is_read_through()
    {
        Create("base");
        ExternalTool.QemuImg(_directory.Directory, ["create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", "top"]).Succeeded();
        AssertSame("-c 1000", "top");
        ToolResult result = Odisk.Run(_directory.Directory, "bench", "-w", "-c", "9", "-S", "100000", "top");
        Assert.Equal(0, result.ExitCode);
        AssertSound("top");
    }

    [Theory]
    [InlineData("-o 16M")]
    [InlineData("-o 17M")]
    [InlineData("-o 9223372036854775807")]
    [InlineData("-s 17M")]
    [InlineData("-c 100000 -s 1000")]
    [InlineData("-c 100000 -s 1000 -w")]
    public void A_request_past_the_end_fails(string arguments)
    {
        Create("image");
        ToolResult ours = AssertSame(arguments, "image");
        Assert.Equal(1, ours.ExitCode);
        AssertSound("image");
    }

    [Theory]
    [InlineData("-c x")]
    [InlineData("-c 1k")]
    [InlineData("-c -1")]
    [InlineData("-c 3000000000")]
    [InlineData("-d x")]
    [InlineData("-d 3000000000")]
    [InlineData("-o x")]
    [InlineData("-o 9E")]
    [InlineData("-o 16E")]
    [InlineData("-s x")]
    [InlineData("-s 2G")]
    [InlineData("-S x")]
    [InlineData("-S 3G")]
    [InlineData("-t foo")]
    [InlineData("-i foo")]
    [InlineData("-i native")]
    [InlineData("-n")]
    [InlineData("--pattern 256")]
    [InlineData("--pattern -1")]
    [InlineData("-w -U")]
    [InlineData("--flush-interval=10")]
    [InlineData("--flush-interval=10 -w")]
    [InlineData("--flush-interval=x -w")]
    [InlineData("--flush-interval=-1 -w")]
    [InlineData("-f foo")]
    [InlineData("-Z")]
    [InlineData("other")]
    public void Wrong_questions_are_answered_as_qemu_img_does(string arguments)
    {
        Create("image");
        Assert.Equal(1, AssertSame(arguments, "image").ExitCode);
        AssertSound("image");
    }

    [Fact]
    public void A_file_that_is_not_there_is_named()
    {
        Assert.Equal(1, AssertSame("-c 1", "none").ExitCode);
        Assert.Equal(1, AssertSame("-c 1 -w", "none").ExitCode);
        Odisk.AssertSameAsQemuImg(_directory.Directory, "bench");
        Odisk.AssertSameAsQemuImg(_directory.Directory, "bench", "--flush-interval=5");
    }

    [Fact]
    public void An_image_in_use_is_refused()
    {
        Create("image");
        using (new LockedImage(_directory.File("image")))
        {
            ToolResult theirs = ExternalTool.QemuImg(_directory.Directory, ["bench", "-w", "image"]);
            ToolResult ours = Odisk.Run(_directory.Directory, "bench", "-w", "image");
            Assert.Equal(theirs.ExitCode, ours.ExitCode);
            Assert.StartsWith("odisk: Could not open 'image': Failed to get \"write\" lock", ours.Errors, StringComparison.Ordinal);
            AssertSame("-c 5 -U", "image");
        }
        AssertSound("image");
    }

    [Theory]
    [InlineData("-i io_uring", "aio option 'io_uring' is not supported by this version; use threads")]
    [InlineData("-d 0", "Invalid queue depth specified")]
    public void What_this_version_cannot_do_is_refused_by_name(string arguments, string message)
    {
        Create("image");
        ToolResult result = Odisk.Run(_directory.Directory, ["bench", .. arguments.Split(' '), "image"]);
        Assert.Equal(1, result.ExitCode);
        Assert.Equal($"odisk: {message}\n", result.Errors);
        Assert.Equal("", result.Output);
    }

    /// <summary>A disk without bytes, on which qemu-img divides by zero.</summary>
    [Fact]
    public void An_empty_disk_has_nothing_to_read()
    {
        ExternalTool.QemuImg(_directory.Directory, ["create", "-q", "-f", "qcow2", "image", "0"]).Succeeded();
        ToolResult result = Odisk.Run(_directory.Directory, "bench", "image");
        Assert.Equal(1, result.ExitCode);
        Assert.Equal("odisk: Failed request: Input/output error\n", result.Errors);
    }

    private void Create(params string[] names)
    {
        foreach (string name in names)
        {
            ExternalTool.QemuImg(_directory.Directory, ["create", "-q", "-f", "qcow2", name, "16M"]).Succeeded();
            ExternalTool.QemuIo(_directory.File(name), ["write -P 1 0 300k", "write -P 2 5M 3M"]).Succeeded();
        }
    }

    private ToolResult AssertSame(string arguments, string image) => AssertSame(arguments, image, image);

    private void AssertSameWriting(string arguments, string ours, string theirs)
    {
        AssertSame("-w " + arguments, ours, theirs);
        ExternalTool.QemuImg(_directory.Directory, ["compare", ours, theirs]).Succeeded();
    }

    private ToolResult AssertSame(string arguments, string ourImage, string theirImage)
    {
        string[] words = ["bench", .. arguments.Split(' ')];
        ToolResult theirs = Timeless(ExternalTool.QemuImg(_directory.Directory, [.. words, theirImage]));
        ToolResult ours = Timeless(Odisk.Run(_directory.Directory, [.. words, ourImage]));
        Odisk.AssertSame(theirs with { Errors = theirs.Errors.Replace($"'{theirImage}'", $"'{ourImage}'", StringComparison.Ordinal) }, ours);
        return ours;
    }

    private static ToolResult Timeless(ToolResult result) =>
        result with { Output = Seconds().Replace(result.Output, "completed in T seconds") };

    private void AssertSound(string image)
    {
        ExternalTool.QemuImg(_directory.Directory, ["check", "-q", image]).Succeeded();
        Assert.Equal(0, Odisk.Run(_directory.Directory, "check", "-q", image).ExitCode);
    }

    [GeneratedRegex(@"completed in \d+\.\d{3} seconds")]
    private static partial Regex Seconds();
}
