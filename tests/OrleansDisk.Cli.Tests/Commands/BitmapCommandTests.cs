using OrleansDisk.Cli.Tests.Tools;
using OrleansDisk.Testing;

namespace OrleansDisk.Cli.Tests.Commands;

/// <summary>odisk bitmap beside qemu-img bitmap: two images, the same commands, the same bitmaps and words.</summary>
public sealed class BitmapCommandTests : IDisposable
{
    private readonly TemporaryDirectory _directory = new();

    public void Dispose() => _directory.Dispose();

    [Fact]
    public async Task The_same_commands_leave_the_same_bitmaps()
    {
        foreach (string image in (ReadOnlySpan<string>)["ours", "theirs"])
        {
            ExternalTool.QemuImg(_directory.Directory, "create", "-q", "-f", "qcow2", image, "10M").Succeeded();
            ExternalTool.QemuImg(_directory.Directory, "create", "-q", "-f", "qcow2", image + ".other", "10M").Succeeded();
        }
        Same("--add", "{}", "b0");
        Same("--add", "-g", "512k", "--disable", "-f", "qcow2", "{}", "b1");
        foreach (string image in (ReadOnlySpan<string>)["ours", "theirs"])
            ExternalTool.QemuIo(_directory.File(image), "write 1M 64k", "write 9M 1k").Succeeded();
        Same("--merge", "b0", "{}", "b1");
        Same("--add", "-b", "{}", "-F", "qcow2", "--merge", "b1", "{}.other", "b2");
        Same("--clear", "{}", "b0");
        Same("--disable", "{}", "b0");
        Same("--enable", "{}", "b1");
        await SameMapAsync("", "b0");
        await SameMapAsync("", "b1");
        await SameMapAsync(".other", "b2");
        Same("--remove", "{}", "b0");
        Assert.Equal(Info("theirs"), Info("ours"));
        foreach (string image in (ReadOnlySpan<string>)["ours", "ours.other"])
            ExternalTool.QemuImg(_directory.Directory, "check", "-q", image).Succeeded();
    }

    [Theory]
    [InlineData("--add")]
    [InlineData("--add", "image")]
    [InlineData("image", "b")]
    [InlineData("-g", "4k", "--clear", "image", "b")]
    [InlineData("-g", "huge", "--add", "image", "b")]
    [InlineData("-g", "1000", "--add", "image", "b")]
    [InlineData("-F", "qcow2", "--merge", "a", "image", "b")]
    [InlineData("-b", "image", "--clear", "image", "b")]
    [InlineData("--clear", "image", "none")]
    [InlineData("--merge", "none", "image", "there")]
    [InlineData("--add", "image", "there")]
    [InlineData("--merge", "there", "-b", "larger", "image", "there")]
    [InlineData("--clear", "image", "broken")]
    public void What_is_wrong_is_said_in_qemu_imgs_words(params string[] arguments)
    {
        foreach (string directory in (ReadOnlySpan<string>)["ours", "theirs"])
        {
            string path = Directory.CreateDirectory(_directory.File(directory)).FullName;
            ExternalTool.QemuImg(path, "create", "-q", "-f", "qcow2", "image", "10M").Succeeded();
            ExternalTool.QemuImg(path, "create", "-q", "-f", "qcow2", "larger", "20M").Succeeded();
            ExternalTool.QemuImg(path, "bitmap", "--add", "larger", "there").Succeeded();
            ExternalTool.QemuImg(path, "bitmap", "--add", "image", "broken").Succeeded();
            ExternalTool.QemuIo(Path.Combine(path, "image"), "sigraise 9");
            ExternalTool.QemuImg(path, "bitmap", "--add", "image", "there").Succeeded();
        }
        ToolResult theirs = ExternalTool.QemuImg(_directory.File("theirs"), ["bitmap", .. arguments]);
        ToolResult ours = Odisk.Run(_directory.File("ours"), ["bitmap", .. arguments]);
        Odisk.AssertSame(theirs, ours);
        Assert.Equal(1, ours.ExitCode);
    }

    [Fact]
    public void Raw_files_and_old_images_have_no_bitmaps()
    {
        File.WriteAllBytes(_directory.File("raw"), new byte[1 << 20]);
        ToolResult raw = Odisk.Run(_directory.Directory, "bitmap", "--add", "-f", "raw", "raw", "b");
        Assert.Contains("only qcow2 images can have bitmaps", raw.Errors, StringComparison.Ordinal);
        ExternalTool.QemuImg(_directory.Directory, "create", "-q", "-f", "qcow2", "-o", "compat=0.10", "old", "1M").Succeeded();
        ToolResult old = Odisk.Run(_directory.Directory, "bitmap", "--add", "old", "b");
        Assert.EndsWith("Cannot store dirty bitmaps in qcow2 v2 files", old.Errors.TrimEnd(), StringComparison.Ordinal);
    }

    private void Same(params string[] arguments)
    {
        string[] For(string image) => ["bitmap", .. arguments.Select(argument => argument.Replace("{}", image, StringComparison.Ordinal))];
        ExternalTool.QemuImg(_directory.Directory, For("theirs")).Succeeded();
        Odisk.Run(_directory.Directory, For("ours")).Succeeded();
    }

    private string Info(string image)
    {
        string info = ExternalTool.QemuImg(_directory.Directory, "info", image).Succeeded().Output;
        return info[info.IndexOf("Format specific", StringComparison.Ordinal)..];
    }

    /// <summary>qemu-nbd shows their bitmap, odisk nbd shows ours, and qemu-img map reads the same from both.</summary>
    private async Task SameMapAsync(string suffix, string bitmap)
    {
        string socket = _directory.File("theirs.socket");
        string context = $"x-dirty-bitmap=qemu:dirty-bitmap:{bitmap}";
        ExternalTool.Run("qemu-nbd", "qemu-utils", _directory.Directory, ["-r", "-f", "qcow2", "-t", "--fork", "--pid-file", _directory.File("pid"),
            "-k", socket, "-B", bitmap, "theirs" + suffix]).Succeeded();
        ToolResult theirs = Map(socket);
        ExternalTool.Run("kill", "procps", "/", [File.ReadAllText(_directory.File("pid")).Trim()]).Succeeded();
        ToolResult ours;
        using (NbdProcess server = await NbdProcess.StartAsync(_directory, "-t", "-B", bitmap, "ours" + suffix))
        {
            ours = Map(_directory.File("socket"));
            Assert.Equal(0, await server.StopAsync("TERM"));
        }
        Assert.Equal(theirs.Output, ours.Output);

        ToolResult Map(string path) => ExternalTool.QemuImg(_directory.Directory, "map", "--output=json", "--image-opts",
            $"driver=nbd,export=,server.type=unix,server.path={path},{context}").Succeeded();
    }
}
