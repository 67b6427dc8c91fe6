using OrleansDisk.Cli.Tests.Tools;

namespace OrleansDisk.Cli.Tests.Commands;

public sealed class MeasureCommandTests : IDisposable
{
    private readonly TemporaryDirectory _directory = new();

    public MeasureCommandTests()
    {
        QemuImg("create -q -f qcow2 base 1G");
        ExternalTool.QemuIo(_directory.File("base"), ["write 512 512", "write 64k 64k", "write -z 256k 64k", "write 100M 3M"]).Succeeded();
        QemuImg("create -q -f qcow2 -b base -F qcow2 top 2G");
        ExternalTool.QemuIo(_directory.File("top"), ["write 500M 10k", "discard 101M 1M"]).Succeeded();
        QemuImg("convert -O raw base raw");
    }

    public void Dispose() => _directory.Dispose();

    [Theory]
    [InlineData("--size 1G")]
    [InlineData("--size 1000")]
    [InlineData("--size 2G -O qcow2")]
    [InlineData("--size 1P -O qcow2")]
    [InlineData("--size 0 -O qcow2")]
    [InlineData("--size 2T -O qcow2 --output=json")]
    [InlineData("--size 2G -O qcow2 -o cluster_size=512")]
    [InlineData("--size 2G -O qcow2 -o cluster_size=2M")]
    [InlineData("--size 2G -O qcow2 -o preallocation=metadata")]
    [InlineData("--size 2G -O qcow2 -o refcount_bits=1")]
    [InlineData("--size 2G -O qcow2 -o refcount_bits=64")]
    [InlineData("--size 2G -O qcow2 -o extended_l2=on")]
    [InlineData("--size 2G -O qcow2 -o compat=0.10")]
    [InlineData("--object secret,id=s,data=x --size 2G -O qcow2 -o encrypt.format=aes,encrypt.key-secret=s")]
    [InlineData("-O raw base")]
    [InlineData("-O raw -f raw raw")]
    [InlineData("-f raw -O qcow2 raw")]
    [InlineData("-O qcow2 -o compat=0.10 base")]
    [InlineData("-O qcow2 -o compat=0.10 top")]
    [InlineData("-O qcow2 -o compat=0.10,cluster_size=1k top")]
    [InlineData("-O qcow2 -o compat=0.10,backing_file=base,backing_fmt=qcow2 top")]
    [InlineData("-f raw -O qcow2 -o cluster_size=2M --output=json raw")]
    public void The_size_is_the_one_that_qemu_img_tells(string arguments) => Assert.Equal(
        0, Odisk.AssertSameAsQemuImg(_directory.Directory, ["measure", .. arguments.Split(' ')]).ExitCode);

    [Theory]
    [InlineData("")]
    [InlineData("--size 1G base")]
    [InlineData("base top")]
    [InlineData("-f qcow2")]
    [InlineData("--image-opts")]
    [InlineData("-o ,")]
    [InlineData("-l snapshot.foo=bar")]
    [InlineData("--output foo")]
    [InlineData("--size 8E")]
    [InlineData("--size -1")]
    [InlineData("--size x")]
    [InlineData("-O foo base")]
    [InlineData("-O qcow2 -o foo=bar base")]
    [InlineData("--size 9223372036854774784 -O qcow2")]
    [InlineData("--size 1P -O qcow2 -o cluster_size=512")]
    [InlineData("-O qcow2 none")]
    public void Wrong_questions_are_answered_as_qemu_img_does(string arguments) => Assert.Equal(1, Odisk.AssertSameAsQemuImg(
        _directory.Directory, ["measure", .. arguments.Split(' ', StringSplitOptions.RemoveEmptyEntries)]).ExitCode);

    private void QemuImg(string arguments) => ExternalTool.QemuImg(_directory.Directory, arguments.Split(' ')).Succeeded();
}
