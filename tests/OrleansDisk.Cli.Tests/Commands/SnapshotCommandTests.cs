using System.Text.RegularExpressions;
using OrleansDisk.Cli.Tests.Tools;

namespace OrleansDisk.Cli.Tests.Commands;

/// <summary>odisk snapshot and qemu-img snapshot do the same to copies of one image, and print the same.</summary>
public sealed partial class SnapshotCommandTests : IDisposable
{
    private readonly TemporaryDirectory _ours = new();
    private readonly TemporaryDirectory _theirs = new();

    public void Dispose()
    {
        _ours.Dispose();
        _theirs.Dispose();
    }

    [Theory]
    [InlineData("compat=1.1")]
    [InlineData("compat=0.10,cluster_size=4k")]
    [InlineData("extended_l2=on")]
    public void Snapshots_are_taken_listed_applied_and_deleted_as_qemu_img_does(string options)
    {
        Create("-o", options, "image", "4M");
        Write("write -P 1 0 1M");
        AssertSame("snapshot", "-l", "image");
        AssertSame("snapshot", "-c", "first", "image");
        Write("write -P 2 512k 1M");
        AssertSame("snapshot", "-q", "-c", "a name that is longer than its column", "image");
        Write("write -P 3 768k 2M", "write -z 0 64k");
        AssertSame("snapshot", "-c", "1", "image");
        AssertSame("snapshot", "-l", "image");
        AssertSame("snapshot", "-d", "1", "image"); // its name: it is the third
        AssertSame("snapshot", "-d", "2", "image");
        AssertSame("snapshot", "-l", "-U", "image");
        AssertSame("snapshot", "-a", "2", "image");
        AssertSameDisk();
        AssertSame("snapshot", "-a", "1", "image");
        AssertSame("snapshot", "-d", "a name that is longer than its column", "image");
        AssertSame("snapshot", "-c", "fourth", "image");
        AssertSame("snapshot", "-l", "image");
        AssertSameDisk();
        AssertSame("snapshot", "image");
    }

    [Fact]
    public void What_can_not_be_done_fails_as_it_does_with_qemu_img()
    {
        Create("-o", "refcount_bits=1", "image", "1M");
        Write("write 0 64k");
        AssertSame("snapshot", "-c", "full", "image");
        AssertSame("snapshot", "-a", "nobody", "image");
        AssertSame("snapshot", "-d", "nobody", "image");
        AssertSame("snapshot", "-l", "-c", "both", "image");
        AssertSame("snapshot", "-l");
        AssertSame("snapshot", "-l", "missing");
        AssertSame("snapshot", "-c");
    }

    [Fact]
    public void Disks_of_other_formats_have_no_snapshots_as_with_qemu_img()
    {
        foreach (TemporaryDirectory directory in (TemporaryDirectory[])[_ours, _theirs])
        {
            File.WriteAllBytes(directory.File("raw"), new byte[1 << 20]);
            ExternalTool.QemuImg(directory.Directory, "create", "-q", "-f", "qcow2", "-o", "data_file=data", "external", "1M").Succeeded();
        }
        AssertSame("snapshot", "-l", "--image-opts", "driver=raw,file.filename=raw");
        foreach (string action in (string[])["-c", "-a", "-d"])
        {
            AssertSame("snapshot", action, "x", "--image-opts", "driver=raw,file.filename=raw");
            AssertSame("snapshot", action, "x", "external");
        }
    }

    private void Create(params string[] arguments)
    {
        ExternalTool.QemuImg(_theirs.Directory, ["create", "-q", "-f", "qcow2", .. arguments]).Succeeded();
        Copy();
    }

    private void Copy() => File.Copy(_theirs.File("image"), _ours.File("image"), overwrite: true);

    private void Write(params string[] commands)
    {
        ExternalTool.QemuIo(_ours.File("image"), commands).Succeeded();
        ExternalTool.QemuIo(_theirs.File("image"), commands).Succeeded();
    }

    private void AssertSame(params string[] arguments)
    {
        ToolResult theirs = ExternalTool.QemuImg(_theirs.Directory, arguments);
        ToolResult ours = Odisk.Run(_ours.Directory, arguments);
        Odisk.AssertSame(theirs with { Output = Date().Replace(theirs.Output, "DATE") }, ours with { Output = Date().Replace(ours.Output, "DATE") });
    }

    private void AssertSameDisk()
    {
        ExternalTool.QemuImg(_ours.Directory, "compare", "-q", "image", _theirs.File("image")).Succeeded();
        ExternalTool.QemuImg(_ours.Directory, "check", "-q", "image").Succeeded();
    }

    /// <summary>When a snapshot was taken: the two are seconds apart.</summary>
    [GeneratedRegex(@"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")]
    private static partial Regex Date();
}
