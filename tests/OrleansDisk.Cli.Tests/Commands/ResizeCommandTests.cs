using OrleansDisk.Cli.Tests.Tools;

namespace OrleansDisk.Cli.Tests.Commands;

/// <summary>Both programs resize disks of their own; what they say and what they leave is the same.</summary>
public sealed class ResizeCommandTests : IDisposable
{
    private readonly TemporaryDirectory _ours = new();
    private readonly TemporaryDirectory _theirs = new();

    public void Dispose()
    {
        _ours.Dispose();
        _theirs.Dispose();
    }

    [Theory]
    [InlineData("disk 64M")]
    [InlineData("disk +1M")]
    [InlineData("disk 4M")]
    [InlineData("-q disk +512")]
    [InlineData("--shrink disk 1M")]
    [InlineData("--shrink -f qcow2 disk -1M")]
    [InlineData("disk -1M")]
    [InlineData("disk 1M")]
    [InlineData("disk 0")]
    [InlineData("disk -8M")]
    [InlineData("disk 1000")]
    [InlineData("disk x")]
    [InlineData("disk 1M 2M")]
    [InlineData("none 1M")]
    [InlineData("--preallocation=metadata disk 8M")]
    [InlineData("--preallocation=falloc disk +3M")]
    [InlineData("--preallocation=full disk +3M")]
    [InlineData("--preallocation=full --shrink disk 1M")]
    [InlineData("--preallocation=some disk 8M")]
    [InlineData("-f raw raw +1M")]
    [InlineData("-f raw --shrink raw 512k")]
    [InlineData("-f raw --preallocation=falloc raw 2M")]
    [InlineData("-f raw --preallocation=full raw 2M")]
    public void A_disk_is_resized_as_qemu_img_does(string arguments)
    {
        foreach (string directory in (string[])[_ours.Directory, _theirs.Directory])
        {
            ExternalTool.QemuImg(directory, "create", "-q", "-f", "qcow2", "disk", "4M").Succeeded();
            ExternalTool.QemuImg(directory, "create", "-q", "-f", "raw", "raw", "1M").Succeeded();
            ExternalTool.QemuIo(Path.Combine(directory, "disk"), "write -P 7 0 4M").Succeeded();
        }
        string[] words = ["resize", .. arguments.Split(' ')];
        Odisk.AssertSame(ExternalTool.QemuImg(_theirs.Directory, words), Odisk.Run(_ours.Directory, words));
        foreach (string name in (string[])["disk", "raw"])
        {
            string format = name == "raw" ? "raw" : "qcow2";
            ExternalTool.QemuImg(_ours.Directory, "compare", "-f", format, "-F", format, _ours.File(name), _theirs.File(name)).Succeeded();
        }
        ExternalTool.QemuImg(_ours.Directory, "check", "disk").Succeeded();
    }

    [Fact]
    public void Preallocated_images_and_raw_files_take_their_space()
    {
        foreach (string options in (string[])["falloc", "full"])
        {
            Odisk.Run(_ours.Directory, "create", "-q", "-f", "qcow2", "-o", $"preallocation={options}", "disk", "8M").Succeeded();
            Odisk.Run(_ours.Directory, "create", "-q", "-f", "raw", "-o", $"preallocation={options}", "raw", "8M").Succeeded();
            ExternalTool.QemuImg(_ours.Directory, "check", "disk").Succeeded();
            foreach (string name in (string[])["disk", "raw"])
            {
                string used = ExternalTool.Run("du", "coreutils", _ours.Directory, ["-k", name]).Succeeded().Output.Split('\t')[0];
                Assert.InRange(int.Parse(used, System.Globalization.CultureInfo.InvariantCulture), 8 << 10, 9 << 10);
            }
        }
    }
}
