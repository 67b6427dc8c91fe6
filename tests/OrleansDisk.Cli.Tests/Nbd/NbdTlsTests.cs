using System.Diagnostics;
using OrleansDisk.Cli.Tests.Tools;
using OrleansDisk.Nbd.Tests.Fixtures;

namespace OrleansDisk.Cli.Tests.Nbd;

/// <summary>TLS between odisk and QEMU's programs.</summary>
public sealed class NbdTlsTests : IDisposable
{
    private readonly TemporaryDirectory _directory = new();
    private readonly string _credentials;

    public NbdTlsTests()
    {
        _credentials = TlsFiles.Create(_directory.File("tls"));
        ExternalTool.QemuImg(_directory.Directory, "create", "-q", "-f", "qcow2", "image", "16M").Succeeded();
        ExternalTool.QemuIo(_directory.File("image"), "write -P 7 1M 3M").Succeeded();
    }

    public void Dispose() => _directory.Dispose();

    [Fact]
    public async Task Qemu_img_and_odisk_read_from_odisk_nbd()
    {
        using NbdProcess server = await NbdProcess.StartAsync(
            _directory, "-r", "-t", "-e", "0", "--object", Credentials("server"), "--tls-creds", "tls0", "image");
        string options = $"driver=nbd,server.type=unix,server.path={_directory.File("socket")},tls-creds=tls0,tls-hostname=disks.test";
        foreach (Func<string[], ToolResult> client in (Func<string[], ToolResult>[])[QemuImg, words => Odisk.Run(_directory.Directory, words)])
        {
            client(["convert", "--image-opts", "--object", Credentials("client"), "-O", "qcow2", options, "copy"]).Succeeded();
            ExternalTool.QemuImg(_directory.Directory, "compare", "-s", "-f", "qcow2", "-F", "qcow2", "image", "copy").Succeeded();
        }
        Odisk.AssertSameAsQemuImg(_directory.Directory, "map", "--output=json", "--image-opts", "--object", Credentials("client"), options);
        Odisk.AssertSameAsQemuImg(_directory.Directory, "info", server.Uri.Replace("///", "//", StringComparison.Ordinal));
        AssertSameList("-L", "-k", _directory.File("socket"), "--object", Credentials("client"), "--tls-creds", "tls0", "--tls-hostname", "disks.test");
        Assert.Equal(0, await server.StopAsync("TERM"));
    }

    [Fact]
    public async Task Odisk_reads_from_and_writes_to_qemu_nbd()
    {
        using Process server = Process.Start(new ProcessStartInfo("qemu-nbd",
            ["-t", "-e", "0", "-k", _directory.File("socket"), "--object", Credentials("server") + ",verify-peer=yes", "--tls-creds", "tls0", "image"])
        {
            WorkingDirectory = _directory.Directory,
        })!;
        while (!File.Exists(_directory.File("socket")))
            await Task.Yield();
        string uri = $"nbds+unix:///?socket={_directory.File("socket")}&tls-certificates={_credentials}&tls-hostname=disks.test";
        Odisk.Run(_directory.Directory, "io", "-f", "raw", "-c", "read -P 7 1M 3M", "-c", "write -P 8 0 1M", "-c", "read -P 8 0 1M", uri).Succeeded();
        ToolResult wrong = Odisk.Run(_directory.Directory, "info", uri.Replace("disks.test", "elsewhere.test", StringComparison.Ordinal));
        Assert.Contains("Certificate does not match the hostname elsewhere.test", wrong.Errors, StringComparison.Ordinal);
        server.Kill();
    }

    [Theory]
    [InlineData("tls-creds-psk,id=tls0,dir=tls", "TLS credentials of the type 'tls-creds-psk' are not supported; use tls-creds-x509")]
    [InlineData("tls-creds-x509,id=tls1,dir=tls,endpoint=server", "Failed to get TLS creds: No TLS credentials with id 'tls0'")]
    [InlineData("tls-creds-x509,id=tls0,dir=tls,endpoint=client", "Failed to get TLS creds: Expecting TLS credentials with a server endpoint")]
    [InlineData("tls-creds-x509,id=tls0,endpoint=server", "Missing 'dir' property value")]
    [InlineData("tls-creds-x509,id=tls0,dir=none,endpoint=server", "Unable to access credentials none/ca-cert.pem: No such file or directory")]
    public void Credentials_that_can_not_be_had_are_named(string definition, string message)
    {
        ToolResult result = Odisk.Run(_directory.Directory, "nbd", "-k", "socket", "--object", definition, "--tls-creds", "tls0", "image");
        Assert.Equal((1, message), (result.ExitCode, result.Errors.Trim().Replace("odisk: ", "", StringComparison.Ordinal)));
    }

    private string Credentials(string endpoint) => $"tls-creds-x509,id=tls0,dir={_credentials},endpoint={endpoint}";

    private ToolResult QemuImg(string[] words) => ExternalTool.QemuImg(_directory.Directory, words);

    private void AssertSameList(params string[] words)
    {
        ToolResult theirs = ExternalTool.Run("qemu-nbd", "qemu-utils", _directory.Directory, words).Succeeded();
        Odisk.AssertSame(theirs, Odisk.Run(_directory.Directory, ["nbd", .. words]));
    }
}
