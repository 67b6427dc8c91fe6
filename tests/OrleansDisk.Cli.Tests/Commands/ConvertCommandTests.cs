using OrleansDisk.Cli.Tests.Tools;

namespace OrleansDisk.Cli.Tests.Commands;

public sealed class ConvertCommandTests : IDisposable
{
    private readonly TwinDirectories _twins = new();

    public ConvertCommandTests()
    {
        _twins.Prepare("create -q -f qcow2 base.qcow2 8M");
        _twins.Change("base.qcow2", "write -P 1 0 3M", "write -P 2 5M 70k", "write -z 1M 200k", "write -P 9 7M 1M");
        _twins.Prepare("create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2 10M");
        _twins.Change("top.qcow2", "write -P 3 100k 40k", "write -z 2M 300k", "discard 5M 64k", "write -P 4 9M 12k");
        _twins.Prepare("convert -c -O qcow2 base.qcow2 packed.qcow2");
        _twins.WriteRaw("plain.raw", 5_000_000, (0, 5000, 1), (8192, 4096, 2), (1 << 20, 300_000, 3), (4_990_000, 10_000, 4));
    }

    public void Dispose() => _twins.Dispose();

    [Theory]
    [InlineData("-O qcow2 base.qcow2 out", "qcow2")]
    [InlineData("-O raw base.qcow2 out", "raw")]
    [InlineData("base.qcow2 out", "raw")]
    [InlineData("-f qcow2 -O qcow2 top.qcow2 out", "qcow2")]
    [InlineData("-O raw top.qcow2 out", "raw")]
    [InlineData("-O qcow2 packed.qcow2 out", "qcow2")]
    [InlineData("-f raw -O qcow2 plain.raw out", "qcow2")]
    [InlineData("-f raw -O raw plain.raw out", "raw")]
    [InlineData("-f raw -O qcow2 -S 0 plain.raw out", "qcow2")]
    [InlineData("-f raw -O raw -S 0 plain.raw out", "raw")]
    [InlineData("-f raw -O raw -S 8k plain.raw out", "raw")]
    [InlineData("-f raw -O raw -S 64k plain.raw out", "raw")]
    [InlineData("-f raw -O qcow2 -S 512 -o cluster_size=512 plain.raw out", "qcow2")]
    [InlineData("-f raw -O qcow2 -o cluster_size=2M plain.raw out", "qcow2")]
    [InlineData("-O qcow2 -o compat=0.10 top.qcow2 out", "qcow2")]
    [InlineData("-O qcow2 -o size=1G top.qcow2 out", "qcow2")]
    [InlineData("-O qcow2 -o preallocation=metadata top.qcow2 out", "qcow2")]
    [InlineData("-O qcow2 -o extended_l2=on top.qcow2 out", "qcow2")]
    [InlineData("-O qcow2 -m 16 -W top.qcow2 out", "qcow2")]
    [InlineData("-O qcow2 -m 1 top.qcow2 out", "qcow2")]
    [InlineData("-O qcow2 -C -t none -T none top.qcow2 out", "qcow2")]
    [InlineData("-C -f raw -O raw plain.raw out", "raw")]
    [InlineData("-O qcow2 --salvage -r 1G -q top.qcow2 out", "qcow2")]
    [InlineData("-O qcow2 -B base.qcow2 -F qcow2 top.qcow2 out", "qcow2")]
    [InlineData("-O qcow2 -o backing_file=base.qcow2,backing_fmt=qcow2 top.qcow2 out", "qcow2")]
    [InlineData("-O qcow2 -B base.qcow2 -F qcow2 packed.qcow2 out", "qcow2")]
    [InlineData("-f raw -O qcow2 -B base.qcow2 -F qcow2 plain.raw out", "qcow2")]
    [InlineData("-O qcow2 --image-opts driver=qcow2,file.filename=top.qcow2 out", "qcow2")]
    [InlineData("-f raw -O qcow2 plain.raw plain.raw plain.raw out", "qcow2")]
    [InlineData("-O raw top.qcow2 packed.qcow2 out", "raw")]
    [InlineData("-O raw -U top.qcow2 out", "raw")]
    public void A_disk_is_copied_as_qemu_img_copies_it(string arguments, string format)
    {
        Assert.Equal(0, _twins.Run(["convert", .. arguments.Split(' ')]).ExitCode);
        _twins.AssertSameDisk("out", format);
        _twins.AssertSameMap("out", format);
    }

    [Theory]
    [InlineData("-c -O qcow2 top.qcow2 out")]
    [InlineData("-c -O qcow2 -o compression_type=zstd top.qcow2 out")]
    [InlineData("-c -O qcow2 -W -m 8 packed.qcow2 out")]
    [InlineData("-c -f raw -O qcow2 -o cluster_size=4k plain.raw out")]
    [InlineData("-c -f raw -O qcow2 -o cluster_size=2M plain.raw plain.raw out")]
    [InlineData("-c -f raw -O qcow2 -S 0 plain.raw out")]
    [InlineData("-c -O qcow2 -B base.qcow2 -F qcow2 top.qcow2 out")]
    public void A_compressed_copy_reads_as_qemu_imgs_does(string arguments)
    {
        Assert.Equal(0, _twins.Run(["convert", .. arguments.Split(' ')]).ExitCode);
        _twins.AssertSameDisk("out", "qcow2");
        _twins.AssertSameMap("out", "qcow2");
    }

    [Theory]
    [InlineData("-n -O qcow2 top.qcow2 there.qcow2", "there.qcow2", "qcow2")]
    [InlineData("-n -O raw top.qcow2 there.raw", "there.raw", "raw")]
    [InlineData("-n -W -f raw -O qcow2 plain.raw there.qcow2", "there.qcow2", "qcow2")]
    [InlineData("-n --target-image-opts top.qcow2 driver=qcow2,file.filename=there.qcow2", "there.qcow2", "qcow2")]
    public void What_a_target_held_before_is_gone(string arguments, string target, string format)
    {
        _twins.Prepare("create -q -f qcow2 there.qcow2 12M");
        _twins.Change("there.qcow2", "write -P 77 0 12M");
        _twins.Prepare("convert -O raw there.qcow2 there.raw");
        Assert.Equal(0, _twins.Run(["convert", .. arguments.Split(' ')]).ExitCode);
        _twins.AssertSameDisk(target, format);
    }

    [Theory]
    [InlineData("")]
    [InlineData("base.qcow2")]
    [InlineData("-O qcow2 none out")]
    [InlineData("-f qcow2 -O qcow2 plain.raw out")]
    [InlineData("-O foo base.qcow2 out")]
    [InlineData("-O qcow2 -o foo=1 base.qcow2 out")]
    [InlineData("-O qcow2 -o cluster_size=3 base.qcow2 out")]
    [InlineData("-O qcow2 -S 1000 base.qcow2 out")]
    [InlineData("-O qcow2 -S 17M base.qcow2 out")]
    [InlineData("-O qcow2 -S x base.qcow2 out")]
    [InlineData("-O qcow2 -m 0 base.qcow2 out")]
    [InlineData("-O qcow2 -m 17 base.qcow2 out")]
    [InlineData("-O qcow2 -r x base.qcow2 out")]
    [InlineData("-O qcow2 -t foo base.qcow2 out")]
    [InlineData("-O qcow2 -T foo base.qcow2 out")]
    [InlineData("-c -C -O qcow2 base.qcow2 out")]
    [InlineData("-C -S 4k -O qcow2 base.qcow2 out")]
    [InlineData("-C --salvage -O qcow2 base.qcow2 out")]
    [InlineData("-c -O raw base.qcow2 out")]
    [InlineData("-c -O qcow2 -o preallocation=metadata base.qcow2 out")]
    [InlineData("--target-image-opts base.qcow2 driver=qcow2,file.filename=out")]
    [InlineData("-n -o size=1M -O qcow2 base.qcow2 out")]
    [InlineData("--target-is-zero -O qcow2 base.qcow2 out")]
    [InlineData("-n -O qcow2 base.qcow2 small.qcow2")]
    [InlineData("-n -c -O raw base.qcow2 plain.raw")]
    [InlineData("-c -O qcow2 -o data_file=out.raw base.qcow2 out")]
    [InlineData("-O raw -B base.qcow2 base.qcow2 out")]
    [InlineData("-O qcow2 -B base.qcow2 top.qcow2 out")]
    [InlineData("-O qcow2 -o backing_file=base.qcow2 top.qcow2 out")]
    [InlineData("-O qcow2 -B base.qcow2 -F qcow2 top.qcow2 top.qcow2 out")]
    public void What_cannot_be_is_refused_as_qemu_img_does(string arguments)
    {
        _twins.Prepare("create -q -f qcow2 small.qcow2 1M");
        ToolResult result = _twins.Run(["convert", .. arguments.Split(' ', StringSplitOptions.RemoveEmptyEntries)]);
        Assert.Equal(1, result.ExitCode);
    }

    [Theory]
    [InlineData("-l first")]
    [InlineData("-l 1")]
    [InlineData("-l snapshot.id=1,snapshot.name=first")]
    [InlineData("-l snapshot.name=first")]
    [InlineData("-l none")]
    [InlineData("-l snapshot.id=7")]
    [InlineData("-l snapshot.foo=7")]
    public void An_internal_snapshot_is_copied(string snapshot)
    {
        _twins.Prepare("snapshot -c first top.qcow2");
        _twins.Change("top.qcow2", "write -P 99 0 4M");
        ToolResult result = _twins.Run(["convert", .. snapshot.Split(' '), "-O", "qcow2", "top.qcow2", "out"]);
        _twins.Run(["measure", .. snapshot.Split(' '), "-O", "qcow2", "top.qcow2"]);
        if (result.ExitCode == 0)
            _twins.AssertSameDisk("out", "qcow2");
    }

    [Fact]
    public void What_can_not_be_read_is_told_in_the_order_of_the_disk_and_copied_as_zeros()
    {
        (string Type, int Sector)[] places = [("block-status", 24), ("read", 1000), ("read", 1001), ("block-status", 9000), ("read", 9000)];
        IEnumerable<string> errors = places.Select(place => $"{{'event':'none','iotype':'{place.Type}','errno':5,'sector':{place.Sector}}}");
        string source = "json:{'driver':'blkdebug','image':{'driver':'qcow2','file':{'driver':'file','filename':'base.qcow2'}},"
            + $"'inject-error':[{string.Join(',', errors)}]}}";
        ToolResult result = _twins.Run("convert", "--salvage", "-O", "qcow2", source, "out");
        Assert.Contains("error while reading offset 512512: Input/output error", result.Errors, StringComparison.Ordinal);
        _twins.AssertSameDisk("out", "qcow2");
        Assert.Equal("", Odisk.Run(_twins.Ours, "convert", "--salvage", "-q", "-O", "qcow2", source, "out").Succeeded().Errors);
        Assert.Equal(1, Odisk.Run(_twins.Ours, "convert", "-O", "qcow2", source, "out").ExitCode);
    }

    [Fact]
    public void The_progress_is_qemu_imgs()
    {
        ToolResult result = Odisk.Run(_twins.Ours, "convert", "-p", "-O", "qcow2", "base.qcow2", "out");
        Assert.StartsWith("    (0.00/100%)\r", result.Output, StringComparison.Ordinal);
        Assert.EndsWith("    (100.00/100%)\r\n", result.Output, StringComparison.Ordinal);
        Assert.Equal("", Odisk.Run(_twins.Ours, "convert", "-p", "-q", "-O", "qcow2", "base.qcow2", "out").Output);
    }

    [Fact]
    public void A_source_that_is_its_own_target_is_left_alone()
    {
        ToolResult result = Odisk.Run(_twins.Ours, "convert", "-O", "qcow2", "base.qcow2", "base.qcow2");
        Assert.Equal(1, result.ExitCode);
        Assert.Contains("Failed to get \"write\" lock", result.Errors, StringComparison.Ordinal);
        _twins.AssertSameDisk("base.qcow2", "qcow2");
    }
}
