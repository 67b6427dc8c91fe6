using System.Net;
using System.Net.Sockets;
using OrleansDisk.Nbd.Protocol;

namespace OrleansDisk.Nbd.Client;

/// <summary>
/// A connection to an NBD export, with one request at a time: for tools and examples, where a load needs libnbd or the
/// kernel. Offsets and lengths are bytes. Calls must not overlap.
/// </summary>
public sealed class NbdClient : IAsyncDisposable
{
    /// <summary>What the protocol lets every server take.</summary>
    private const int MaxRequestBytes = 32 << 20;

    private readonly NetworkStream _stream;
    private ClientSession _session;
    private ulong _lastCookie;

    private NbdClient(NetworkStream stream) => _stream = stream;

    /// <summary>Size of the export in bytes.</summary>
    public long Bytes => _session.Bytes;

    public bool IsReadOnly => _session.Flags.HasFlag(NbdTransmissionFlags.ReadOnly);

    /// <summary>Whether the server has the metadata context that was asked for.</summary>
    public bool HasContext => _session.ContextId is not null;

    /// <summary>Connects to a server on a unix socket.</summary>
    /// <param name="path">The socket.</param>
    /// <param name="export">Name of the export.</param>
    /// <param name="context">A metadata context to ask for, such as base:allocation; null: none.</param>
    /// <param name="cancellation">Ends the attempt.</param>
    /// <exception cref="IOException">The server can't be reached, or does not have the export; the message says which.</exception>
    public static Task<NbdClient> ConnectUnixAsync(string path, string export, string? context = null, CancellationToken cancellation = default) =>
        ConnectAsync(new UnixDomainSocketEndPoint(path), export, context, cancellation);

    /// <summary>Connects to a server by TCP.</summary>
    /// <param name="host">Its name or address.</param>
    /// <param name="port">The port, mostly 10809.</param>
    /// <param name="export">Name of the export.</param>
    /// <param name="context">A metadata context to ask for, such as base:allocation; null: none.</param>
    /// <param name="cancellation">Ends the attempt.</param>
    /// <exception cref="IOException">The server can't be reached, or does not have the export; the message says which.</exception>
    public static Task<NbdClient> ConnectTcpAsync(string host, int port, string export, string? context = null, CancellationToken cancellation = default) =>
        ConnectAsync(new DnsEndPoint(host, port), export, context, cancellation);

    /// <summary>Fills the buffer.</summary>
    public async Task ReadAsync(long offset, Memory<byte> buffer, CancellationToken cancellation = default)
    {
        while (buffer.Length > 0)
        {
            Memory<byte> part = buffer[..Math.Min(buffer.Length, MaxRequestBytes)];
            await RequestAsync(NbdCommand.Read, NbdCommandFlags.None, offset, (uint)part.Length, default, part, cancellation);
            offset += part.Length;
            buffer = buffer[part.Length..];
        }
    }

    public async Task WriteAsync(long offset, ReadOnlyMemory<byte> data, bool fua = false, CancellationToken cancellation = default)
    {
        NbdCommandFlags flags = fua ? NbdCommandFlags.Fua : NbdCommandFlags.None;
        while (data.Length > 0)
        {
            ReadOnlyMemory<byte> part = data[..Math.Min(data.Length, MaxRequestBytes)];
            await RequestAsync(NbdCommand.Write, flags, offset, (uint)part.Length, part, default, cancellation);
            offset += part.Length;
            data = data[part.Length..];
        }
    }

    /// <summary>Makes a range read as zeros.</summary>
    public Task WriteZeroesAsync(long offset, uint bytes, CancellationToken cancellation = default) =>
        RequestAsync(NbdCommand.WriteZeroes, NbdCommandFlags.None, offset, bytes, default, default, cancellation);

    /// <summary>Gives up what a range holds.</summary>
    public Task TrimAsync(long offset, uint bytes, CancellationToken cancellation = default) =>
        RequestAsync(NbdCommand.Trim, NbdCommandFlags.None, offset, bytes, default, default, cancellation);

    /// <summary>Puts on stable storage what was acknowledged.</summary>
    public Task FlushAsync(CancellationToken cancellation = default) =>
        RequestAsync(NbdCommand.Flush, NbdCommandFlags.None, 0, 0, default, default, cancellation);

    /// <summary>What the metadata context says of the range that starts at an offset, and how far that goes.</summary>
    /// <exception cref="IOException">The server does not have the context, or can't tell.</exception>
    public async Task<NbdExtent> GetExtentAsync(long offset, uint bytes, CancellationToken cancellation = default)
    {
        ClientReply reply = await AskAsync(NbdCommand.BlockStatus, NbdCommandFlags.RequestOne, offset, bytes, default, default, cancellation);
        return reply.Extent is { } extent ? extent with { Bytes = Math.Min(extent.Bytes, bytes) }
            : throw new IOException($"the server says nothing of {bytes} bytes at {offset}");
    }

    /// <summary>Says goodbye and closes the connection.</summary>
    public async ValueTask DisposeAsync()
    {
        try
        {
            await SendAsync(NbdCommand.Disconnect, NbdCommandFlags.None, 0, 0, default, CancellationToken.None);
        }
        catch (IOException)
        {
            // The server was faster.
        }
        await _stream.DisposeAsync();
    }

    private static async Task<NbdClient> ConnectAsync(EndPoint server, string export, string? context, CancellationToken cancellation)
    {
        Socket socket = server is UnixDomainSocketEndPoint
            ? new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified)
            : new Socket(SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
        try
        {
            await socket.ConnectAsync(server, cancellation);
            var client = new NbdClient(new NetworkStream(socket, ownsSocket: true));
            client._session = await new ClientHandshake(client._stream, export, context).RunAsync(cancellation);
            return client;
        }
        catch (SocketException e)
        {
            socket.Dispose();
            throw new IOException($"cannot connect to {server}: {e.Message}", e);
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }

    private async Task RequestAsync(NbdCommand command, NbdCommandFlags flags, long offset, uint length,
        ReadOnlyMemory<byte> payload, Memory<byte> target, CancellationToken cancellation)
    {
        _ = await AskAsync(command, flags, offset, length, payload, target, cancellation);
    }

    private async Task<ClientReply> AskAsync(NbdCommand command, NbdCommandFlags flags, long offset, uint length,
        ReadOnlyMemory<byte> payload, Memory<byte> target, CancellationToken cancellation)
    {
        ulong cookie = await SendAsync(command, flags, offset, length, payload, cancellation);
        var reply = new ClientReply(_stream, _session, cookie);
        await reply.ReceiveAsync(offset, target, cancellation);
        return reply.Error == NbdError.None ? reply
            : throw new IOException($"{command} of {length} bytes at {offset} failed: {reply.Error}");
    }

    private async Task<ulong> SendAsync(NbdCommand command, NbdCommandFlags flags, long offset, uint length,
        ReadOnlyMemory<byte> payload, CancellationToken cancellation)
    {
        byte[] header = new byte[RequestHeader.HeaderBytes];
        ulong cookie = ++_lastCookie;
        new RequestHeader(NbdMagic.Request, flags, command, cookie, (ulong)offset, length).WriteTo(header);
        await _stream.WriteAsync(header, cancellation);
        if (payload.Length > 0)
            await _stream.WriteAsync(payload, cancellation);
        return cookie;
    }
}
