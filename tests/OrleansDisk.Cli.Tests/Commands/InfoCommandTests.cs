using OrleansDisk.Cli.Tests.Tools;

namespace OrleansDisk.Cli.Tests.Commands;

public sealed class InfoCommandTests : IDisposable
{
    private readonly TemporaryDirectory _directory = new();

    public void Dispose() => _directory.Dispose();

    [Theory]
    [InlineData("")]
    [InlineData("-o compat=0.10")]
    [InlineData("-o cluster_size=512,refcount_bits=1,lazy_refcounts=on")]
    [InlineData("-o compression_type=zstd")]
    [InlineData("-o extended_l2=on")]
    [InlineData("-o data_file=data")]
    [InlineData("-o data_file=data,data_file_raw=on")]
    [InlineData("-b sub/base.img -F raw -u")]
    [InlineData("-b sub/base.img -F raw -u -o cluster_size=2M")]
    [InlineData("-b /nowhere/grün -F qcow2 -u -o compat=0.10")]
    [InlineData("-o encrypt.format=aes,encrypt.key-secret=s --object secret,id=s,data=abc")]
    [InlineData("-u -b x -F raw -o encrypt.format=aes,encrypt.key-secret=s --object secret,id=s,data=abc")]
    public void Facts_are_printed_as_qemu_img_does(string options)
    {
        Create("image", "7777777", options.Split(' ', StringSplitOptions.RemoveEmptyEntries));
        AssertSame("image");
        AssertSame("-U", "image");
        AssertSame("-f", "qcow2", Path.Combine(_directory.Directory, "image"));
        AssertSame("--format=raw", "image");
    }

    [Theory]
    [InlineData("")]
    [InlineData(",encrypt.cipher-alg=aes-128,encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv,encrypt.hash-alg=sha1,compat=0.10")]
    public void The_keys_of_LUKS_are_described_as_qemu_img_does_without_the_secret(string options)
    {
        Odisk.Run(_directory.Directory, "create", "-q", "-f", "qcow2", "--object", "secret,id=s,data=abc",
            "-o", $"encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10{options}", "image", "1M").Succeeded();
        AssertSame("image");
    }

    [Fact]
    public void Snapshots_are_listed_as_qemu_img_does()
    {
        Create("image", "10G");
        ExternalTool.QemuIo(_directory.File("image"), "write 0 300k", "write 9G 1M").Succeeded();
        foreach (string name in (string[])["first", "a name that is longer than its column", "\"quoted\\\" Ünicode"])
            ExternalTool.QemuImg(_directory.Directory, "snapshot", "-c", name, "image").Succeeded();
        AssertSame("image");
        long table = (long)DamagedImage.PeekUInt64(_directory.File("image"), 64);
        DamagedImage.PokeUInt64(_directory.File("image"), table + 24, 3_723_456_789_123); // VM clock
        DamagedImage.PokeUInt64(_directory.File("image"), table + 40, 5_555_555); // VM state
        DamagedImage.PokeUInt64(_directory.File("image"), table + 56, ulong.MaxValue); // no instruction count
        AssertSame("image");
    }

    [Fact]
    public void Bitmaps_are_listed_as_qemu_img_does()
    {
        Create("image", "10M");
        ExternalTool.QemuImg(_directory.Directory, "bitmap", "--add", "image", "one").Succeeded();
        ExternalTool.QemuImg(_directory.Directory, "bitmap", "--add", "-g", "4096", "--disable", "image", "two").Succeeded();
        AssertSame("image");
    }

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public void Dirty_and_corrupt_images_are_shown_as_such(int features)
    {
        Create("image", "10M");
        DamagedImage.PokeUInt64(_directory.File("image"), 72, (ulong)features);
        AssertSame("image");
    }

    [Fact]
    public void A_chain_is_shown_from_top_to_bottom()
    {
        Directory.CreateDirectory(_directory.File("sub"));
        File.WriteAllBytes(_directory.File("sub/base.raw"), new byte[3000]);
        Create("sub/middle", "1M", "-b", "base.raw", "-F", "raw");
        Create("top", "2M", "-b", "sub/middle", "-F", "qcow2", "-o", "cluster_size=4k");
        AssertSame("--backing-chain", "top");
        AssertSame("top");
        AssertSame("sub/middle");
        AssertSame("--backing", "sub/base.raw");
    }

    [Fact]
    public void A_chain_that_is_a_loop_is_refused()
    {
        Create("one", "1M", "-u", "-b", "two", "-F", "qcow2");
        Create("two", "1M", "-u", "-b", "one", "-F", "qcow2");
        ToolResult result = Odisk.Run(_directory.Directory, "info", "--backing-chain", "one");
        Assert.Equal(1, result.ExitCode);
        Assert.Equal("odisk: Backing file 'one' creates an infinite loop.\n", result.Errors);
    }

    [Theory]
    [InlineData("")]
    [InlineData("a b")]
    [InlineData("none")]
    [InlineData("-f qcow2 raw.img")]
    [InlineData("-f foo raw.img")]
    [InlineData("--output=xml raw.img")]
    [InlineData("--output")]
    [InlineData("--foo raw.img")]
    [InlineData("-Z raw.img")]
    [InlineData("--backing-chain orphan")]
    [InlineData("raw.img")]
    [InlineData("--out=json raw.img")]
    public void Wrong_questions_are_answered_as_qemu_img_does(string arguments)
    {
        File.WriteAllBytes(_directory.File("raw.img"), new byte[1025]);
        Create("orphan", "1M", "-u", "-b", "gone", "-F", "qcow2");
        Odisk.AssertSameAsQemuImg(_directory.Directory, ["info", .. arguments.Split(' ', StringSplitOptions.RemoveEmptyEntries)]);
    }

    [Theory]
    [InlineData(0, 8, "file format: raw")]
    [InlineData(4, 4, "Unsupported qcow2 version 0")]
    [InlineData(20, 4, "Unsupported cluster size: 2^0")]
    [InlineData(56, 4, "Image does not contain a reference count table")]
    public void Damaged_headers_are_named(long offset, int bytes, string message)
    {
        Create("image", "1M");
        using (FileStream stream = File.OpenWrite(_directory.File("image")))
        {
            stream.Position = offset;
            stream.Write(new byte[bytes]);
        }
        ToolResult result = Odisk.Run(_directory.Directory, ["info", .. offset == 0 ? (string[])[] : ["-f", "qcow2"], "image"]);
        Assert.Contains(message, result.Output + result.Errors, StringComparison.Ordinal);
        Assert.Equal(offset == 0 ? 0 : 1, result.ExitCode);
    }

    [Fact]
    public void An_image_that_is_being_written_is_shown_only_when_asked_for()
    {
        Create("image", "1M");
        using var writer = new LockedImage(_directory.File("image"));
        ToolResult refused = Odisk.Run(_directory.Directory, "info", "image");
        Assert.Equal(1, refused.ExitCode);
        Assert.StartsWith("odisk: Could not open 'image': Failed to get shared \"write\" lock\n", refused.Errors, StringComparison.Ordinal);
        Odisk.Run(_directory.Directory, "info", "-U", "image").Succeeded();
    }

    private void Create(string name, string size, params string[] options) =>
        ExternalTool.QemuImg(_directory.Directory, ["create", "-q", "-f", "qcow2", .. options, name, size]).Succeeded();

    private void AssertSame(params string[] arguments)
    {
        Odisk.AssertSameAsQemuImg(_directory.Directory, ["info", .. arguments]).Succeeded();
        Odisk.AssertSameAsQemuImg(_directory.Directory, ["info", "--output=json", .. arguments]).Succeeded();
    }
}
