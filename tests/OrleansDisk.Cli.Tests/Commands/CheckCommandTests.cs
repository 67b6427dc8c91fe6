using OrleansDisk.Cli.Tests.Tools;
using OrleansDisk.Testing;
using static OrleansDisk.Testing.DamagedImage;

namespace OrleansDisk.Cli.Tests.Commands;

public sealed class CheckCommandTests : IDisposable
{
    private const long L2Table = 0x40000;

    private readonly TemporaryDirectory _directory = new();

    private string Image => _directory.File("image");

    public void Dispose() => _directory.Dispose();

    [Theory]
    [InlineData(0, 0)]
    [InlineData(3, 0x8000000000070002UL)]
    [InlineData(3, 0x0000000000070000UL)]
    [InlineData(3, 0UL)]
    [InlineData(3, 0x8000000000050000UL)]
    [InlineData(3, 0x4000000000070000UL)]
    [InlineData(3, 0x8000000000070200UL)]
    [InlineData(3, 0x8000000100070000UL)]
    public void Reports_and_exit_codes_are_qemu_imgs(int entry, ulong value)
    {
        MakeImage("write 0 320k", "write -c 512k 64k", "write 1M 64k");
        if (entry > 0)
            PokeUInt64(Image, L2Table + (8 * (entry - 1)), value);
        Odisk.AssertSameAsQemuImg(_directory.Directory, "check", "image");
        Odisk.AssertSameAsQemuImg(_directory.Directory, "check", "--output=json", "image");
        Odisk.AssertSameAsQemuImg(_directory.Directory, "check", "-q", "-f", "qcow2", "-U", "image");
    }

    [Fact]
    public void Empty_and_unallocated_images_have_no_percentages()
    {
        MakeImage();
        Odisk.AssertSameAsQemuImg(_directory.Directory, "check", "image").Succeeded();
        Odisk.AssertSameAsQemuImg(_directory.Directory, "check", "--output=json", "image").Succeeded();
        ExternalTool.QemuImg(_directory.Directory, "create", "-q", "-f", "qcow2", "empty", "0").Succeeded();
        Odisk.AssertSameAsQemuImg(_directory.Directory, "check", "empty").Succeeded();
        Odisk.AssertSameAsQemuImg(_directory.Directory, "check", "--output=json", "empty").Succeeded();
    }

    [Theory]
    [InlineData("")]
    [InlineData("none")]
    [InlineData("raw.img")]
    [InlineData("-f raw image")]
    [InlineData("-f qcow2 raw.img")]
    [InlineData("-r some image")]
    [InlineData("--output=xml image")]
    [InlineData("image image")]
    public void Wrong_questions_are_answered_as_qemu_img_does(string arguments)
    {
        MakeImage();
        File.WriteAllBytes(_directory.File("raw.img"), new byte[512]);
        Odisk.AssertSameAsQemuImg(_directory.Directory, ["check", .. arguments.Split(' ', StringSplitOptions.RemoveEmptyEntries)]);
    }

    [Fact]
    public void A_check_that_cannot_be_done_ends_with_1()
    {
        MakeImage("write 0 64k");
        PokeUInt64(Image, 0x10000, 0x20200);
        ToolResult result = Odisk.Run(_directory.Directory, "check", "image");
        Assert.Equal(1, result.ExitCode);
        Assert.EndsWith("odisk: Check failed\n", result.Errors, StringComparison.Ordinal);
    }

    [Fact]
    public void Repair_is_refused_and_the_image_stays()
    {
        MakeImage("write 0 64k");
        PokeUInt64(Image, L2Table, 0);
        byte[] before = File.ReadAllBytes(Image);
        ToolResult result = Odisk.Run(_directory.Directory, "check", "-r", "all", "image");
        Assert.Equal((1, "odisk: repairing is not supported by this version; use qemu-img check -r all\n"), (result.ExitCode, result.Errors));
        Assert.Equal(before, File.ReadAllBytes(Image));
    }

    private void MakeImage(params string[] commands)
    {
        ExternalTool.QemuImg(_directory.Directory, "create", "-q", "-f", "qcow2", "image", "4M").Succeeded();
        if (commands.Length > 0)
            ExternalTool.QemuIo(Image, commands).Succeeded();
    }
}
