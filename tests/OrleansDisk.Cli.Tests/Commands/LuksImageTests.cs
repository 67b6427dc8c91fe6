using OrleansDisk.Cli.Tests.Tools;

namespace OrleansDisk.Cli.Tests.Commands;

/// <summary>Plain LUKS files: QEMU reads what odisk writes, odisk reads what QEMU writes, and both say the same of them.</summary>
public sealed class LuksImageTests : IDisposable
{
    private const string Opened = "driver=luks,key-secret=s,file.filename=disk";
    private static readonly string[] _secret = ["--object", "secret,id=s,data=first", "--object", "secret,id=n,data=new"];
    private readonly TemporaryDirectory _directory = new();

    public LuksImageTests() => Create("disk", "3M", "");

    public void Dispose() => _directory.Dispose();

    [Theory]
    [InlineData("")]
    [InlineData(",cipher-alg=aes-128,cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha256,hash-alg=sha1")]
    [InlineData(",cipher-alg=aes-192,ivgen-alg=plain,hash-alg=sha512,preallocation=full")]
    public void Each_reads_what_the_other_wrote_at_any_byte(string options)
    {
        Create("disk", "3M", options);
        string[] written = ["write -P 1 0 3M", "write -P 2 77 3", "write -P 3 500 1M", "write -P 4 2M 512", "write -z 2100001 70001"];
        string[] read = ["read -P 1 0 77", "read -P 2 77 3", "read -P 3 500 1M", "read -P 4 2M 512", "read -P 0 2100001 70001", "read -P 1 2170002 5"];
        foreach (bool weWrite in (bool[])[true, false])
        {
            Io(weWrite, written);
            Io(!weWrite, read);
            Io(weWrite, read);
            Io(weWrite, "write -P 9 0 3M");
        }
    }

    [Fact]
    public void Requests_that_share_sectors_and_overlap_in_time_lose_nothing()
    {
        string[] writes = [.. Enumerable.Range(0, 64).Select(i => $"aio_write -P {i + 1} {i * 100} 100")];
        Io(isOurs: true, ["write -P 0 0 8k", .. writes, "aio_flush"]);
        Io(isOurs: false, [.. Enumerable.Range(0, 64).Select(i => $"read -P {i + 1} {i * 100} 100")]);
    }

    [Theory]
    [InlineData("info disk")]
    [InlineData("info --output=json disk")]
    [InlineData("map --output=json --image-opts " + Opened)]
    [InlineData("check --image-opts " + Opened)]
    [InlineData("map disk")]
    [InlineData("resize disk 4M")]
    [InlineData("resize --image-opts " + Opened + ",foo=1 4M")]
    [InlineData("create -f luks none 1M")]
    [InlineData("create -f luks -o key-secret=x none 1M")]
    [InlineData("create -f luks -o key-secret=s,cipher-alg=foo none 1M")]
    [InlineData("create -f luks -o key-secret=s none")]
    [InlineData("create -f luks -b disk -F luks none")]
    [InlineData("convert -O luks disk none")]
    [InlineData("amend -f luks -o help")]
    [InlineData("amend -o key-secret=s --image-opts " + Opened)]
    [InlineData("amend -o state=foo --image-opts " + Opened)]
    [InlineData("measure -O luks --size 1M")]
    public void It_is_spoken_of_in_qemu_imgs_words(string arguments)
    {
        string[] words = arguments.Split(' ');
        string[] secret = arguments.Contains(Opened, StringComparison.Ordinal) || arguments.Contains("key-secret", StringComparison.Ordinal) ? _secret : [];
        Odisk.AssertSameAsQemuImg(_directory.Directory, [words[0], .. secret, .. words[1..]]);
    }

    [Fact]
    public void Copies_hold_all_of_the_disk_zeros_too()
    {
        Io(isOurs: true, "write -P 5 0 1M", "write -z 1M 1M", "write -P 6 2M 1M");
        Ours(["convert", "-O", "qcow2", .. _secret, "--image-opts", Opened, "copy"]);
        Ours(["convert", "-f", "qcow2", "-O", "luks", .. _secret, "-o", "key-secret=n,iter-time=10", "copy", "back"]);
        foreach (string copy in (string[])["driver=qcow2,file.filename=copy", "driver=luks,key-secret=n,file.filename=back"])
            ExternalTool.QemuImg(_directory.Directory, ["compare", .. _secret, "--image-opts", Opened, copy]).Succeeded();
        ExternalTool.QemuImg(_directory.Directory, ["check", "-q", "copy"]).Succeeded();
    }

    [Fact]
    public void It_grows_and_shrinks()
    {
        Io(isOurs: true, "write -P 5 0 3M");
        Ours(["resize", .. _secret, "--image-opts", Opened, "5M"]);
        Io(isOurs: true, "write -P 6 3M 2M");
        Io(isOurs: false, "read -P 5 0 3M", "read -P 6 3M 2M");
        Ours(["resize", "--shrink", .. _secret, "--image-opts", Opened, "1M"]);
        Io(isOurs: false, "read -P 5 0 1M");
        Assert.Contains("virtual size: 1 MiB (1048576 bytes)", ExternalTool.QemuImg(_directory.Directory, "info", "disk").Output, StringComparison.Ordinal);
    }

    [Fact]
    public void Passwords_come_and_go()
    {
        Io(isOurs: true, "write -P 5 0 3M");
        Ours(["amend", .. _secret, "-o", "state=active,new-secret=n,iter-time=10", "--image-opts", Opened]);
        Ours(["amend", .. _secret, "-o", "state=inactive,old-secret=s", "--image-opts", Opened]);
        ToolResult gone = ExternalTool.Run("qemu-io", "qemu-utils", _directory.Directory, [.. _secret, "-c", "read 0 1", "--image-opts", Opened]);
        Assert.Contains("Invalid password, cannot unlock any keyslot", gone.Errors, StringComparison.Ordinal);
        string opened = Opened.Replace("secret=s", "secret=n", StringComparison.Ordinal);
        ExternalTool.Run("qemu-io", "qemu-utils", _directory.Directory, [.. _secret, "-c", "read -P 5 0 3M", "--image-opts", opened]).Succeeded();
    }

    [Theory]
    [InlineData(104, "overlapping with the header")] // where the disk begins
    [InlineData(6, "version")]
    [InlineData(208, "Keyslot 0 state is corrupted")]
    public void A_damaged_header_is_an_error_that_says_so(int at, string expected)
    {
        byte[] bytes = File.ReadAllBytes(_directory.File("disk"));
        bytes.AsSpan(at, 2).Fill(0xff);
        File.WriteAllBytes(_directory.File("disk"), bytes);
        ToolResult result = Odisk.Run(_directory.Directory, ["io", .. _secret, "-c", "read 0 1", "--image-opts", Opened]);
        Assert.Equal(1, result.ExitCode);
        Assert.Contains(expected, result.Errors, StringComparison.Ordinal);
    }

    /// <summary>QEMU 7.2 stops at an assertion.</summary>
    [Fact]
    public void A_cipher_whose_key_material_is_not_whole_sectors_is_refused()
    {
        ToolResult result = Odisk.Run(_directory.Directory, ["create", "-q", "-f", "luks", .. _secret, "-o",
            "key-secret=s,iter-time=10,cipher-alg=aes-192,cipher-mode=cbc", "none", "1M"]);
        Assert.Contains("aes-192 in mode cbc", result.Errors, StringComparison.Ordinal);
        Assert.Equal(1, result.ExitCode);
        Assert.False(File.Exists(_directory.File("none")));
    }

    [Fact]
    public void A_password_that_is_no_text_is_refused_before_the_file_is_made()
    {
        File.WriteAllBytes(_directory.File("key"), [0x80, 0x81]);
        ToolResult result = Odisk.Run(_directory.Directory, "create", "-q", "-f", "luks", "--object", "secret,id=s,file=key", "-o", "key-secret=s", "none", "1M");
        Assert.Equal("odisk: none: Data from secret s is not valid UTF-8\n", result.Errors);
        Assert.False(File.Exists(_directory.File("none")));
    }

    private void Create(string file, string size, string options) =>
        Ours(["create", "-q", "-f", "luks", .. _secret, "-o", $"key-secret=s,iter-time=10{options}", file, size]);

    private void Ours(string[] arguments) => Odisk.Run(_directory.Directory, arguments).Succeeded();

    private void Io(bool isOurs, params string[] commands)
    {
        string[] arguments = [.. _secret, .. commands.SelectMany(command => (string[])["-c", command]), "--image-opts", Opened];
        ToolResult result = isOurs ? Odisk.Run(_directory.Directory, ["io", .. arguments])
            : ExternalTool.Run("qemu-io", "qemu-utils", _directory.Directory, arguments);
        result.Succeeded();
        Assert.DoesNotContain("fail", result.Output, StringComparison.OrdinalIgnoreCase);
    }
}
