using System.Net;
using System.Net.Sockets;

namespace OrleansDisk.Nbd.Server;

/// <summary>Where an <see cref="NbdServer"/> listens.</summary>
public abstract class NbdListenAddress
{
    private const int Backlog = 128;

    /// <summary>
    /// A unix socket. A socket file that no one listens on any more is replaced; any other file, or a living
    /// socket, is an error. The file is removed when the server stops.
    /// </summary>
    public static NbdListenAddress Unix(string path) => new UnixAddress(path);

    /// <summary>
    /// TCP on every address of <paramref name="host"/>; an empty host or <c>*</c> means all interfaces. Port 0
    /// takes a free port, told by <see cref="NbdServer.EndPoints"/>.
    /// </summary>
    public static NbdListenAddress Tcp(string host, int port) => new TcpAddress(host, port);

    /// <summary>A socket that already listens, as from socket activation. The server closes it when it stops.</summary>
    public static NbdListenAddress Existing(Socket listening) => new ExistingAddress(listening);

    /// <exception cref="IOException">The address can't be had; the message names it.</exception>
    internal abstract Task<IReadOnlyList<Socket>> ListenAsync(CancellationToken cancellation);

    private static Socket Listen(EndPoint endPoint, string name)
    {
        var socket = new Socket(endPoint.AddressFamily, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            if (endPoint is IPEndPoint { Address: var address } && address.Equals(IPAddress.IPv6Any))
                socket.DualMode = true;
            socket.Bind(endPoint);
            socket.Listen(Backlog);
            return socket;
        }
        catch (SocketException e)
        {
            socket.Dispose();
            string reason = e.SocketErrorCode == SocketError.AddressAlreadyInUse ? "address in use" : e.Message;
            throw new IOException($"cannot listen on {name}: {reason}", e);
        }
    }

    private sealed class UnixAddress(string path) : NbdListenAddress
    {
        // sockaddr_un has room for 108 bytes with the terminating NUL.
        private const int MaxPathBytes = 107;

        internal override Task<IReadOnlyList<Socket>> ListenAsync(CancellationToken cancellation)
        {
            if (System.Text.Encoding.UTF8.GetByteCount(path) is 0 or > MaxPathBytes)
                throw new IOException($"cannot listen on '{path}': a unix socket's path has 1 to {MaxPathBytes} bytes");
            var endPoint = new UnixDomainSocketEndPoint(path);
            if (Path.Exists(path))
                RemoveStale(endPoint);
            return Task.FromResult<IReadOnlyList<Socket>>([Listen(endPoint, $"'{path}'")]);
        }

        private void RemoveStale(UnixDomainSocketEndPoint endPoint)
        {
            if (!FileType.IsSocket(path))
                throw new IOException($"cannot listen on '{path}': a file is there that is not a socket");
            using var probe = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
            try
            {
                probe.Connect(endPoint);
            }
            catch (SocketException e) when (e.SocketErrorCode == SocketError.ConnectionRefused)
            {
                File.Delete(path);
                return;
            }
            catch (SocketException e)
            {
                throw new IOException($"cannot listen on '{path}': {e.Message}", e);
            }
            throw new IOException($"cannot listen on '{path}': address in use");
        }
    }

    private sealed class TcpAddress(string host, int port) : NbdListenAddress
    {
        internal override async Task<IReadOnlyList<Socket>> ListenAsync(CancellationToken cancellation)
        {
            if (port is < 0 or > 65535)
                throw new IOException($"cannot listen on port {port}: a port is 0 to 65535");
            var sockets = new List<Socket>();
            try
            {
                foreach (IPAddress address in await ResolveAsync(cancellation))
                    sockets.Add(Listen(new IPEndPoint(address, port), $"{address}, port {port}"));
                return sockets;
            }
            catch
            {
                sockets.ForEach(socket => socket.Dispose());
                throw;
            }
        }

        private async Task<IPAddress[]> ResolveAsync(CancellationToken cancellation)
        {
            if (host is "" or "*")
                return [Socket.OSSupportsIPv6 ? IPAddress.IPv6Any : IPAddress.Any];
            try
            {
                return await Dns.GetHostAddressesAsync(host, cancellation);
            }
            catch (SocketException e)
            {
                throw new IOException($"cannot listen on host '{host}': {e.Message}", e);
            }
        }
    }

    private sealed class ExistingAddress(Socket listening) : NbdListenAddress
    {
        internal override Task<IReadOnlyList<Socket>> ListenAsync(CancellationToken cancellation) =>
            Task.FromResult<IReadOnlyList<Socket>>([listening]);
    }
}
