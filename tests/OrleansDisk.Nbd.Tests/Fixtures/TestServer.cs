using System.Collections.Concurrent;
using System.Net.Sockets;
using OrleansDisk.Nbd.Server;

namespace OrleansDisk.Nbd.Tests.Fixtures;

/// <summary>A server in this process on a unix socket in a directory of its own.</summary>
internal sealed class TestServer : IAsyncDisposable
{
    private readonly DirectoryInfo _directory = Directory.CreateTempSubdirectory("nbd-");

    private TestServer(IReadOnlyCollection<INbdExport> exports, Func<Action<string>, NbdServerOptions> options)
    {
        Exports = exports;
        SocketPath = Path.Combine(_directory.FullName, "socket");
        Server = new NbdServer([NbdListenAddress.Unix(SocketPath)], () => Exports, options(Lines.Enqueue));
    }

    public NbdServer Server { get; }

    public IReadOnlyCollection<INbdExport> Exports { get; set; }

    public ConcurrentQueue<string> Lines { get; } = new();

    public string SocketPath { get; }

    /// <summary>For files of the test; removed with the server.</summary>
    public string DirectoryPath => _directory.FullName;

    public static Task<TestServer> StartAsync(params INbdExport[] exports) =>
        StartAsync(log => new NbdServerOptions { Log = log }, exports);

    public static async Task<TestServer> StartAsync(
        Func<Action<string>, NbdServerOptions> options, params INbdExport[] exports)
    {
        var server = new TestServer(exports, options);
        await server.Server.StartAsync();
        return server;
    }

    public string Uri(string exportName = "") => $"nbd+unix:///{exportName}?socket={SocketPath}";

    public RawClient Connect()
    {
        var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        socket.Connect(new UnixDomainSocketEndPoint(SocketPath));
        return new RawClient(socket);
    }

    /// <summary>Connects and enters the transmission phase of the default export.</summary>
    public RawClient Go(bool structured = true, bool blockStatus = false)
    {
        RawClient client = Connect();
        client.Greet();
        if (structured)
            client.Acknowledged(Protocol.NbdOption.StructuredReply, []);
        if (blockStatus)
            client.Option(Protocol.NbdOption.SetMetaContext, Wire.MetaContext("", "base:allocation"));
        client.Go("");
        return client;
    }

    public async ValueTask DisposeAsync()
    {
        await Server.DisposeAsync();
        _directory.Delete(recursive: true);
    }
}
