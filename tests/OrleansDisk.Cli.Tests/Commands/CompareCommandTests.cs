using OrleansDisk.Cli.Tests.Tools;

namespace OrleansDisk.Cli.Tests.Commands;

public sealed class CompareCommandTests : IDisposable
{
    private readonly TemporaryDirectory _directory = new();

    public CompareCommandTests()
    {
        QemuImg("create -q -f qcow2 a 6M");
        QemuIo("a", "write -P 1 0 1M", "write -P 2 3M 100k");
        QemuImg("convert -O raw a a.raw");
        QemuImg("create -q -f qcow2 b 6M");
        QemuIo("b", "write -P 1 0 1M", "write -P 2 3M 100k", "write -P 0 4M 64k");
        QemuImg("create -q -f qcow2 -b a -F qcow2 c 6M");
        QemuIo("c", "write -P 7 3200k 512");
        QemuImg("create -q -f qcow2 -b a -F qcow2 longer 9M");
        QemuImg("create -q -f qcow2 -b a -F qcow2 differs 9M");
        QemuIo("differs", "write -P 7 8M 4k");
        QemuImg("create -q -f qcow2 empty 6M");
    }

    public void Dispose() => _directory.Dispose();

    [Theory]
    [InlineData("a a", 0)]
    [InlineData("a b", 0)]
    [InlineData("-s a a", 0)]
    [InlineData("a a.raw", 0)]
    [InlineData("-f qcow2 -F raw a a.raw", 0)]
    [InlineData("-F raw a a", 1)]
    [InlineData("a c", 1)]
    [InlineData("c a", 1)]
    [InlineData("-q a c", 1)]
    [InlineData("a longer", 0)]
    [InlineData("-s a longer", 1)]
    [InlineData("longer a", 0)]
    [InlineData("a differs", 1)]
    [InlineData("differs a", 1)]
    [InlineData("a empty", 1)]
    [InlineData("empty c", 1)]
    [InlineData("-T none -U a b", 0)]
    [InlineData("-T foo a b", 2)]
    [InlineData("--image-opts driver=qcow2,file.filename=a driver=raw,file.filename=a.raw", 0)]
    [InlineData("a none", 2)]
    [InlineData("none a", 2)]
    [InlineData("-f qcow2 a.raw a", 2)]
    [InlineData("a", 1)]
    [InlineData("a b c", 1)]
    public void The_answer_is_qemu_imgs(string arguments, int exitCode) => Assert.Equal(
        exitCode, Odisk.AssertSameAsQemuImg(_directory.Directory, ["compare", .. arguments.Split(' ')]).ExitCode);

    /// <summary>qemu-img names a place before it, where one of the maps has its last extent.</summary>
    [Fact]
    public void What_is_mapped_otherwise_is_named_by_its_place()
    {
        ToolResult result = Odisk.Run(_directory.Directory, "compare", "-s", "a", "b");
        Assert.Equal("Strict mode: Offset 4194304 block status mismatch!\n", result.Output);
        Assert.Equal(1, result.ExitCode);
    }

    private void QemuImg(string arguments) => ExternalTool.QemuImg(_directory.Directory, arguments.Split(' ')).Succeeded();

    private void QemuIo(string image, params string[] commands) => ExternalTool.QemuIo(_directory.File(image), commands).Succeeded();
}
