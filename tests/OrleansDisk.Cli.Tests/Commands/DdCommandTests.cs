using OrleansDisk.Cli.Tests.Tools;

namespace OrleansDisk.Cli.Tests.Commands;

public sealed class DdCommandTests : IDisposable
{
    private readonly TwinDirectories _twins = new();

    public DdCommandTests()
    {
        _twins.Prepare("create -q -f qcow2 in 5M");
        _twins.Change("in", "write -P 1 0 1M", "write -P 2 1100k 100k", "write -P 3 4M 1M");
        _twins.WriteRaw("raw", 1_000_100, (0, 400_000, 1), (700_000, 300_100, 2));
    }

    public void Dispose() => _twins.Dispose();

    [Theory]
    [InlineData("if=in of=out", "raw")]
    [InlineData("-O qcow2 if=in of=out bs=1M", "qcow2")]
    [InlineData("-O qcow2 if=in of=out bs=1M count=2", "qcow2")]
    [InlineData("if=in of=out bs=1M skip=1", "raw")]
    [InlineData("if=in of=out bs=1000 skip=1050 count=1200", "raw")]
    [InlineData("if=in of=out bs=1M skip=7", "raw")]
    [InlineData("if=in of=out bs=1M skip=3 count=2", "raw")]
    [InlineData("if=in of=out bs=1M count=9223372036854775807", "raw")]
    [InlineData("if=in of=out bs=1M skip=9223372036854775807", "raw")]
    [InlineData("-f raw -O qcow2 if=raw of=out bs=64k", "qcow2")]
    [InlineData("-f raw if=raw of=out bs=100 skip=3 count=5000", "raw")]
    [InlineData("--image-opts -O raw if=driver=qcow2,file.filename=in of=out bs=2M", "raw")]
    [InlineData("-U if=in of=out count=0", "raw")]
    public void The_part_is_the_one_that_qemu_img_copies(string arguments, string format)
    {
        Assert.Equal(0, _twins.Run(["dd", .. arguments.Split(' ')]).ExitCode);
        _twins.AssertSameDisk("out", format);
    }

    [Theory]
    [InlineData("")]
    [InlineData("if=in")]
    [InlineData("of=out")]
    [InlineData("if=none of=out")]
    [InlineData("if=in of=out bs=0")]
    [InlineData("if=in of=out bs=2G")]
    [InlineData("if=in of=out bs=x")]
    [InlineData("if=in of=out count=-1")]
    [InlineData("if=in of=out skip=x")]
    [InlineData("if=in of=out conv=sync")]
    [InlineData("if=in of=out foo")]
    [InlineData("-O foo if=in of=out")]
    [InlineData("if=in of=nowhere/out")]
    public void Wrong_operands_are_answered_as_qemu_img_does(string arguments) => Assert.Equal(
        1, _twins.Run(["dd", .. arguments.Split(' ', StringSplitOptions.RemoveEmptyEntries)]).ExitCode);
}
