using OrleansDisk.Cli.Tests.Tools;

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

    [Theory]
    [InlineData("")]
    [InlineData("-c -o cluster_size=4k")]
    [InlineData("-o extended_l2=on,compat=1.1 -W -m 16")]
    public async Task Convert_takes_bitmaps_along(string options)
    {
        PrepareSources();
        BothConvert($"--bitmaps --skip-broken-bitmaps {options} -O qcow2 {{}}.source {{}}");
        BothConvert($"--bitmaps -O qcow2 {{}} {{}}.again");
        Assert.Equal(Info("theirs"), Info("ours"));
        Assert.Contains("b0", Info("ours"), StringComparison.Ordinal);
        foreach (string bitmap in (string[])["b0", "b1", "all"])
        {
            await SameMapAsync("", bitmap);
            await SameMapAsync(".again", bitmap);
        }
        foreach (string image in (string[])["ours", "ours.again"])
        {
            ExternalTool.QemuImg(_directory.Directory, "check", "-q", image).Succeeded();
            Odisk.Run(_directory.Directory, "check", "-q", image).Succeeded();
        }
    }

    [Theory]
    [InlineData("--bitmaps -O qcow2 {}.source {}")]
    [InlineData("--bitmaps --skip-broken-bitmaps -O raw {}.source {}")]
    [InlineData("--bitmaps --skip-broken-bitmaps -O qcow2 -o compat=0.10 {}.source {}")]
    [InlineData("--bitmaps -f raw -O qcow2 {}.source {}")]
    [InlineData("--bitmaps -O qcow2 {}.old {}")]
    [InlineData("--bitmaps -O qcow2 {}.source {}.source {}")]
    [InlineData("--skip-broken-bitmaps -O qcow2 {}.source {}")]
    [InlineData("--bitmaps -n -O qcow2 {}.has {}.large")]
    [InlineData("--bitmaps -n -O qcow2 {}.has {}.also")]
    public void Bitmaps_that_cannot_be_copied_are_an_error_in_qemu_imgs_words(string arguments)
    {
        PrepareSources();
        ToolResult theirs = ExternalTool.QemuImg(_directory.Directory, ConvertWords("theirs", arguments));
        ToolResult ours = Odisk.Run(_directory.Directory, ConvertWords("ours", arguments));
        Odisk.AssertSame(theirs, ours);
        Assert.Equal(1, ours.ExitCode);
        ExternalTool.QemuImg(_directory.Directory, "check", "-q", "ours.also").Succeeded();
    }

    /// <summary>Images with what convert comes upon: bits on and off, one bitmap that a crash broke, one that the target has.</summary>
    private void PrepareSources()
    {
        foreach (string image in (ReadOnlySpan<string>)["ours", "theirs"])
        {
            string source = image + ".source";
            Prepare($"create -q -f qcow2 {source} 10000000");
            Prepare($"create -q -f qcow2 -o compat=0.10 {image}.old 1M");
            Prepare($"create -q -f qcow2 {image}.large 20M");
            Prepare($"create -q -f qcow2 {image}.has 10000000");
            Prepare($"bitmap --add {image}.has all");
            Prepare($"convert --bitmaps -O qcow2 {image}.has {image}.also");
            Prepare($"bitmap --add {source} broken");
            ExternalTool.QemuIo(_directory.File(source), "sigraise 9");
            Prepare($"bitmap --add -g 512 {source} b0");
            ExternalTool.QemuIo(_directory.File(source), "write 1M 1000", "write 5M 64k", "write 9999400 600").Succeeded();
            Prepare($"bitmap --add --disable {source} b1");
            Prepare($"bitmap --merge b0 {source} b1");
            Prepare($"bitmap --add -g 1M {source} all");
            ExternalTool.QemuIo(_directory.File(source), "write -z 0 10000000").Succeeded();
        }

        void Prepare(string arguments) => ExternalTool.QemuImg(_directory.Directory, arguments.Split(' ')).Succeeded();
    }

    private static string[] ConvertWords(string image, string arguments) =>
        ["convert", .. arguments.Replace("{}", image, StringComparison.Ordinal).Split(' ', StringSplitOptions.RemoveEmptyEntries)];

    private void BothConvert(string arguments)
    {
        ToolResult theirs = ExternalTool.QemuImg(_directory.Directory, ConvertWords("theirs", arguments)).Succeeded();
        Odisk.AssertSame(theirs, Odisk.Run(_directory.Directory, ConvertWords("ours", arguments)));
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
        Assert.Equal(theirs.Output, OurMap(socket).Output);
        ExternalTool.Run("kill", "procps", "/", [File.ReadAllText(_directory.File("pid")).Trim()]).Succeeded();
        ToolResult ours;
        using (NbdProcess server = await NbdProcess.StartAsync(_directory, "-t", "-B", bitmap, "ours" + suffix))
        {
            ours = Map(_directory.File("socket"));
            Assert.Equal(0, await server.StopAsync("TERM"));
        }
        Assert.Equal(theirs.Output, ours.Output);

        string[] MapWords(string path) => ["map", "--output=json", "--image-opts", $"driver=nbd,export=,server.type=unix,server.path={path},{context}"];
        ToolResult Map(string path) => ExternalTool.QemuImg(_directory.Directory, MapWords(path)).Succeeded();
        ToolResult OurMap(string path) => Odisk.Run(_directory.Directory, MapWords(path)).Succeeded();
    }
}
