using OrleansDisk.Cli.Tests.Tools;
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

    [Theory]
    [InlineData("nothing is wrong", L2Table + 8, 0x8000000000060000UL, 8)]
    [InlineData("a leak", L2Table + 8, 0UL, 8)]
    [InlineData("a cluster that two entries share", L2Table + 8, 0x8000000000050000UL, 8)]
    [InlineData("unaligned data", L2Table + 8, 0x8000000000060200UL, 8)]
    [InlineData("an unaligned zero cluster", L2Table + 8, 0x8000000000060201UL, 8)]
    [InlineData("reserved bits", L2Table + 8, 0x8000000000060002UL, 8)]
    [InlineData("a copied flag that is missing", L2Table + 8, 0x60000UL, 8)]
    [InlineData("data past the end", L2Table + 8, 0x8000000010060000UL, 8)]
    [InlineData("a refcount block past the end", 0x10000, 0x20020000UL, 8)]
    [InlineData("a second refcount block far past the end", 0x10008, 0x7fffffffffff0000UL, 8)]
    [InlineData("no refcount block", 0x10000, 0UL, 8)]
    [InlineData("a refcount block used twice", 0x10008, 0x20000UL, 8)]
    [InlineData("refcount 0 of data", 0x2000a, 0UL, 2)]
    [InlineData("refcount 7 of data", 0x2000a, 7UL, 2)]
    [InlineData("refcount 2 of the L2 table", 0x20008, 2UL, 2)]
    [InlineData("no refcount table", 56, 0UL, 4)]
    [InlineData("dirty", 72, 1UL, 8)]
    [InlineData("corrupt", 72, 2UL, 8)]
    public void Repairs_end_as_qemu_imgs_do(string what, long offset, ulong value, int bytes)
    {
        Assert.NotEmpty(what);
        MakeImage("write 0 256k");
        Action poke = bytes switch
        {
            8 => () => PokeUInt64(Image, offset, value),
            4 => () => PokeUInt32(Image, offset, (uint)value),
            _ => () => PokeUInt16(Image, offset, (ushort)value),
        };
        poke();
        byte[] damaged = File.ReadAllBytes(Image);
        foreach (string repair in (string[])["leaks", "all"])
        {
            foreach (string output in (string[])["human", "json"])
            {
                File.WriteAllBytes(Image, damaged);
                ToolResult theirs = ExternalTool.QemuImg(_directory.Directory, "check", "-r", repair, $"--output={output}", "image");
                byte[] theirFeatures = File.ReadAllBytes(Image)[72..80];
                File.WriteAllBytes(Image, damaged);
                ToolResult ours = Odisk.Run(_directory.Directory, "check", "-r", repair, $"--output={output}", "image");
                string errors = ours.Errors.Replace(
                    "odisk: repairing leaks is not enough: the refcounts have to be rebuilt, use -r all\n", "", StringComparison.Ordinal);
                Odisk.AssertSame(theirs, ours with { Errors = errors });
                Assert.Equal(theirFeatures, File.ReadAllBytes(Image)[72..80]);
                if (ours.ExitCode == 0)
                    ExternalTool.QemuImg(_directory.Directory, "check", "-q", "image").Succeeded();
            }
        }
    }

    [Theory]
    [InlineData(0x20001UL)]
    [InlineData(0x20200UL)]
    public void A_refcount_table_on_which_qemu_img_gives_up_is_rebuilt(ulong entry)
    {
        MakeImage("write -P 3 0 256k");
        PokeUInt64(Image, 0x10000, entry);
        ToolResult result = Odisk.Run(_directory.Directory, "check", "-r", "all", "image").Succeeded();
        Assert.Contains("Rebuilding refcount structure", result.Errors, StringComparison.Ordinal);
        ExternalTool.QemuImg(_directory.Directory, "check", "-q", "image").Succeeded();
        ExternalTool.QemuIo(Image, "read -P 3 0 256k").Succeeded();
    }

    [Theory]
    [InlineData("-r all -U image", "odisk: Could not open 'image': force-share=on can only be used with read-only images\n")]
    [InlineData("-T some image", "odisk: Invalid source cache option: some\n")]
    public void Options_that_can_not_be_had_are_errors(string arguments, string error)
    {
        MakeImage();
        ToolResult result = Odisk.Run(_directory.Directory, ["check", .. arguments.Split(' ')]);
        Assert.Equal((1, error), (result.ExitCode, result.Errors));
    }

    private void MakeImage(params string[] commands)
    {
        ExternalTool.QemuImg(_directory.Directory, "create", "-q", "-f", "qcow2", "image", "4M").Succeeded();
        if (commands.Length > 0)
            ExternalTool.QemuIo(Image, commands).Succeeded();
    }
}
