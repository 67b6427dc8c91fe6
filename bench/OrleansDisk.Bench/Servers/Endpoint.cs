using System.Net;
using System.Net.Sockets;

namespace OrleansDisk.Bench.Servers;

/// <summary>Where a server listens.</summary>
/// <param name="SocketPath">A unix socket, or null for TCP.</param>
/// <param name="Port">The port on 127.0.0.1 when there is no socket.</param>
internal readonly record struct Endpoint(string? SocketPath, int Port)
{
    /// <summary>The name of the export on every server.</summary>
    public const string Export = "disk";

    public string Uri => SocketPath is null ? $"nbd://127.0.0.1:{Port}/{Export}" : $"nbd+unix:///{Export}?socket={SocketPath}";

    public static Endpoint Unix(string path) => new(path, 0);

    /// <summary>A connection to the server that listens here.</summary>
    public Socket Connect()
    {
        Socket socket = SocketPath is null
            ? new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true }
            : new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        socket.Connect(SocketPath is null ? new IPEndPoint(IPAddress.Loopback, Port) : new UnixDomainSocketEndPoint(SocketPath));
        return socket;
    }

    /// <summary>A port that nobody uses at the moment.</summary>
    public static Endpoint Tcp()
    {
        using var probe = new TcpListener(IPAddress.Loopback, 0);
        probe.Start();
        return new Endpoint(null, ((IPEndPoint)probe.LocalEndpoint).Port);
    }
}
