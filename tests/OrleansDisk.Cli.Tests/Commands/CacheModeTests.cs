using OrleansDisk.Cli.Tests.Tools;

namespace OrleansDisk.Cli.Tests.Commands;

/// <summary>The cache modes none and directsync, on a disk that has them: what odisk writes past the page cache, QEMU reads, and the other way round.</summary>
public sealed class CacheModeTests : IDisposable
{
    private readonly TwinDirectories _twins = new();

    public CacheModeTests()
    {
        _twins.Prepare("create -q -f qcow2 base.qcow2 4M");
        _twins.Change("base.qcow2", "write -P 1 0 3M");
        _twins.Prepare("create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2 4M");
        _twins.Change("top.qcow2", "write -P 2 1000 3000");
    }

    public void Dispose() => _twins.Dispose();

    [Theory]
    [InlineData("convert -t none -T none -O qcow2 top.qcow2 out")]
    [InlineData("convert -t directsync -T directsync -c -O qcow2 top.qcow2 out")]
    [InlineData("convert -t none -O qcow2 -o cluster_size=512 top.qcow2 out")]
    [InlineData("rebase -t none -T none -b  top.qcow2")]
    [InlineData("commit -t none top.qcow2")]
    [InlineData("amend -t none -o compat=0.10 top.qcow2")]
    [InlineData("check -T none top.qcow2")]
    [InlineData("compare -T none top.qcow2 base.qcow2")]
    public void Commands_take_them_and_do_what_they_do_otherwise(string arguments)
    {
        _twins.Run(arguments.Split(' '));
        _twins.AssertSameDisk(arguments.StartsWith("convert", StringComparison.Ordinal) ? "out" : "top.qcow2", "qcow2");
        _twins.AssertSameDisk("base.qcow2", "qcow2");
    }

    [Theory]
    [InlineData("-n -f qcow2 top.qcow2")]
    [InlineData("-t directsync -f qcow2 top.qcow2")]
    [InlineData("--image-opts driver=qcow2,cache.direct=on,file.filename=top.qcow2")]
    [InlineData("--image-opts driver=qcow2,cache.direct=off,file.filename=top.qcow2,file.cache.direct=on,backing.cache.direct=on")]
    public void The_shell_writes_any_bytes(string opening)
    {
        Odisk.Run(_twins.Ours, ["io", "-c", "write -P 7 77 5", "-c", "write -P 8 1M 300001", "-c", "discard 2M 64k", "-c", "flush", .. opening.Split(' ')]).Succeeded();
        ToolResult read = ExternalTool.QemuIo(Path.Combine(_twins.Ours, "top.qcow2"),
            "read -P 7 77 5", "read -P 1 82 918", "read -P 2 1000 3000", "read -P 8 1M 300001", "read -P 1 1348577 748575");
        Assert.DoesNotContain("failed", read.Succeeded().Output, StringComparison.Ordinal);
        ExternalTool.QemuImg(_twins.Ours, "check", "-q", "top.qcow2").Succeeded();
    }

    [Theory]
    [InlineData("info --image-opts driver=raw,cache.direct=on,file.filename=/proc/version")]
    [InlineData("convert -f raw -T none -O qcow2 /proc/version out")]
    [InlineData("compare -f raw -F raw -T none /proc/version /proc/version")]
    public void A_file_system_without_them_is_named_in_QEMUs_words(string arguments) =>
        Assert.NotEqual(0, _twins.Run(arguments.Split(' ')).ExitCode);

    [Fact]
    public void A_bench_runs_past_the_cache()
    {
        ToolResult result = Odisk.Run(_twins.Ours, "bench", "-w", "-t", "none", "-n", "-c", "50", "-s", "512", "-o", "100", "-f", "qcow2", "base.qcow2");
        result.Succeeded();
        ExternalTool.QemuImg(_twins.Ours, "check", "-q", "base.qcow2").Succeeded();
    }
}
