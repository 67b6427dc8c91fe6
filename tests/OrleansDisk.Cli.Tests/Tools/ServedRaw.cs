using System.Diagnostics;

namespace OrleansDisk.Cli.Tests.Tools;

/// <summary>A raw image of 3 MiB behind an odisk nbd that can be killed and started again.</summary>
internal sealed class ServedRaw : IDisposable
{
    private readonly TemporaryDirectory _directory;
    private readonly string _socket;

    public ServedRaw(TemporaryDirectory directory)
    {
        _directory = directory;
        _socket = directory.File("socket");
        File.WriteAllBytes(directory.File("raw.img"), new byte[3 << 20]);
    }

    /// <summary>The options of the image's driver for a client.</summary>
    public string Options => $"driver=nbd,server.type=unix,server.path={_socket}";

    /// <summary>Starts the server; returns when clients can connect.</summary>
    public void Start() => Odisk.Run(_directory.Directory,
        "nbd", "--fork", "--pid-file=pid", "-t", "-f", "raw", "-k", _socket, "raw.img").Succeeded();

    public void Kill()
    {
        using var server = Process.GetProcessById(int.Parse(File.ReadAllText(_directory.File("pid")), null));
        server.Kill();
        server.WaitForExit();
        File.Delete(_directory.File("pid"));
        File.Delete(_socket);
    }

    public void Dispose()
    {
        if (File.Exists(_directory.File("pid")))
            Kill();
    }
}
