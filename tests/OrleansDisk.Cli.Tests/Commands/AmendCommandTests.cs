using OrleansDisk.Cli.Tests.Tools;

namespace OrleansDisk.Cli.Tests.Commands;

/// <summary>Key slots are changed by amend; QEMU says the same, and opens the image with the passwords that it then has.</summary>
public sealed class AmendCommandTests : IDisposable
{
    private const string Opened = "driver=qcow2,encrypt.key-secret=s,file.filename=disk.qcow2";
    private static readonly string[] _secrets = ["--object", "secret,id=s,data=first", "--object", "secret,id=n,data=new"];
    private readonly TwinDirectories _twins = new();

    public AmendCommandTests()
    {
        Odisk.Run(_twins.Ours, ["create", "-q", "-f", "qcow2", .. _secrets, "-o",
            "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10", "disk.qcow2", "1M"]).Succeeded();
        File.Copy(Path.Combine(_twins.Ours, "disk.qcow2"), Path.Combine(_twins.Theirs, "disk.qcow2"));
    }

    public void Dispose() => _twins.Dispose();

    [Theory]
    [InlineData("-o encrypt.state=active,encrypt.new-secret=n,encrypt.iter-time=10", true, true)]
    [InlineData("-p -o encrypt.state=active,encrypt.new-secret=n,encrypt.iter-time=10,encrypt.keyslot=7,lazy_refcounts=on", true, true)]
    [InlineData("-o encrypt.state=active,encrypt.new-secret=n,encrypt.iter-time=10,compat=0.10", true, true)]
    [InlineData("-o encrypt.state=active,encrypt.new-secret=n,encrypt.iter-time=10,encrypt.keyslot=0 --force", false, true)]
    [InlineData("-o encrypt.state=inactive,encrypt.old-secret=s --force", false, false)]
    public void Key_slots_are_filled_and_erased(string arguments, bool firstOpens, bool newOpens)
    {
        Assert.Equal(0, Amend(arguments, Opened).ExitCode);
        Assert.Equal(firstOpens, Opens("first"));
        Assert.Equal(newOpens, Opens("new"));
        Assert.Equal(0, Odisk.Run(_twins.Ours, "check", "-q", "disk.qcow2").ExitCode);
    }

    [Theory]
    [InlineData("-o encrypt.state=foo")]
    [InlineData("-o encrypt.new-secret=n")]
    [InlineData("-o encrypt.state=active,encrypt.new-secret=other")]
    [InlineData("-o encrypt.state=active,encrypt.new-secret=n,encrypt.keyslot=x")]
    [InlineData("-o encrypt.state=active,encrypt.new-secret=n,encrypt.iter-time=x")]
    [InlineData("-o encrypt.state=active,encrypt.new-secret=n,encrypt.iter-time=10,encrypt.keyslot=0")]
    [InlineData("-o encrypt.state=inactive,encrypt.old-secret=other")]
    [InlineData("-o encrypt.state=inactive,encrypt.old-secret=n")]
    [InlineData("-o encrypt.state=inactive,encrypt.keyslot=0,compat=0.10,lazy_refcounts=off")]
    [InlineData("-o encrypt.key-secret=n")]
    public void What_can_not_be_is_refused_as_qemu_img_does_and_nothing_changes(string arguments)
    {
        byte[] before = File.ReadAllBytes(Path.Combine(_twins.Ours, "disk.qcow2"));
        Assert.Equal(1, Amend(arguments, Opened).ExitCode);
        Assert.Equal(before, File.ReadAllBytes(Path.Combine(_twins.Ours, "disk.qcow2")));
    }

    [Theory]
    [InlineData("driver=qcow2,file.filename=disk.qcow2")]
    [InlineData("driver=qcow2,encrypt.key-secret=n,file.filename=disk.qcow2")]
    public void Whoever_has_no_password_of_the_image_changes_nothing(string opened) =>
        Assert.Equal(1, Amend("-o encrypt.state=active,encrypt.new-secret=n", opened).ExitCode);

    [Fact]
    public void Images_without_key_slots_are_refused()
    {
        _twins.Prepare("create -q -f qcow2 plain.qcow2 1M");
        _twins.Prepare("create -q -f qcow2 --object secret,id=s,data=first -o encrypt.format=aes,encrypt.key-secret=s aes.qcow2 1M");
        Assert.Equal(1, Amend("-o encrypt.state=foo", "driver=qcow2,file.filename=plain.qcow2").ExitCode);
        Assert.Equal(1, Amend("-o encrypt.state=foo", "driver=qcow2,encrypt.key-secret=s,file.filename=aes.qcow2").ExitCode);
    }

    private ToolResult Amend(string arguments, string opened)
    {
        string[] words = ["amend", .. _secrets, .. arguments.Split(' '), "--image-opts", opened];
        ToolResult theirs = ExternalTool.QemuImg(_twins.Theirs, words);
        ToolResult ours = Odisk.Run(_twins.Ours, words);
        Odisk.AssertSame(theirs, ours);
        return ours;
    }

    /// <summary>Whether QEMU opens the image with a password.</summary>
    private bool Opens(string password)
    {
        ToolResult result = ExternalTool.Run("qemu-io", "qemu-utils", _twins.Ours,
            ["--object", $"secret,id=s,data={password}", "-c", "read -P 0 0 512", "--image-opts", Opened]);
        Assert.True(result.ExitCode == 0 || result.Errors.Contains("Invalid password", StringComparison.Ordinal), result.Errors);
        return result.ExitCode == 0;
    }
}
