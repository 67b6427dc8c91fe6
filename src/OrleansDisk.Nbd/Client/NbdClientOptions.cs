using System.Net;
using System.Net.Sockets;
using OrleansDisk.Nbd.Tls;

namespace OrleansDisk.Nbd.Client;

/// <summary>Which export a client is to connect to, and what it is to ask for.</summary>
public sealed record NbdClientOptions
{
    /// <summary>Where the server listens: a unix socket, or a name or address with its TCP port.</summary>
    public required EndPoint Server { get; init; }

    /// <summary>The export's name; the empty one asks for the server's default.</summary>
    public string Export { get; init; } = "";

    /// <summary>The metadata context that <see cref="NbdClient.GetBlockStatusAsync"/> is to tell of, or null for none.</summary>
    public string? MetaContext { get; init; }

    /// <summary>What to use TLS with, or null: the connection is plain. A server that can't do TLS is refused.</summary>
    public NbdTlsCredentials? Tls { get; init; }

    /// <summary>The name that the server's certificate must have; null: that of <see cref="Server"/>.</summary>
    public string? TlsHostName { get; init; }

    /// <summary>The server as people write it: a path, or HOST:PORT.</summary>
    internal string ServerName => Server switch
    {
        DnsEndPoint dns => $"{dns.Host}:{dns.Port}",
        _ => Server.ToString() ?? "",
    };

    /// <summary>The name that the server's certificate must have, or null: a unix socket has none.</summary>
    internal string? CertificateName => TlsHostName ?? (Server as DnsEndPoint)?.Host ?? (Server as IPEndPoint)?.Address.ToString();

    /// <exception cref="IOException">The server can't be reached; the message names it.</exception>
    internal async Task<Socket> ConnectAsync(CancellationToken cancellation)
    {
        Socket socket = Server is UnixDomainSocketEndPoint
            ? new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified)
            : new Socket(SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
        try
        {
            // A name that is an address needs no resolver, which would refuse 0.0.0.0.
            EndPoint server = Server is DnsEndPoint dns && IPAddress.TryParse(dns.Host, out IPAddress? address)
                ? new IPEndPoint(address, dns.Port) : Server;
            await socket.ConnectAsync(server, cancellation);
            return socket;
        }
        catch (SocketException e)
        {
            socket.Dispose();
            throw new IOException(Explain(e), e);
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }

    private string Explain(SocketException e) => e.SocketErrorCode switch
    {
        SocketError.HostNotFound or SocketError.NoData or SocketError.TryAgain =>
            $"address resolution failed for {ServerName}: Name or service not known",
        SocketError.ConnectionRefused => $"Failed to connect to '{ServerName}': Connection refused",
        _ when Server is UnixDomainSocketEndPoint && !File.Exists(ServerName) =>
            $"Failed to connect to '{ServerName}': No such file or directory",
        _ => $"Failed to connect to '{ServerName}': {e.Message}",
    };
}
