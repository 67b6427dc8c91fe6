using System.Buffers.Binary;
using System.Net;
using System.Net.Sockets;
using System.Text;
using OrleansDisk.Nbd.Protocol;

namespace OrleansDisk.Nbd.Client;

/// <summary>
/// A connection to an NBD export, with simple replies and one request at a time: for tools and examples, where
/// a load needs libnbd or the kernel. Offsets and lengths are bytes. Calls must not overlap.
/// </summary>
public sealed class NbdClient : IAsyncDisposable
{
    /// <summary>What the protocol lets every server take.</summary>
    private const int MaxRequestBytes = 32 << 20;
    private const int MaxOptionReplyBytes = 64 << 10;

    private readonly NetworkStream _stream;
    private NbdTransmissionFlags _flags;
    private ulong _lastCookie;

    private NbdClient(NetworkStream stream) => _stream = stream;

    /// <summary>Size of the export in bytes.</summary>
    public long Bytes { get; private set; }

    public bool IsReadOnly => _flags.HasFlag(NbdTransmissionFlags.ReadOnly);

    /// <summary>Connects to a server on a unix socket.</summary>
    /// <exception cref="IOException">The server can't be reached, or does not have the export; the message says which.</exception>
    public static Task<NbdClient> ConnectUnixAsync(string path, string export, CancellationToken cancellation = default) =>
        ConnectAsync(new UnixDomainSocketEndPoint(path), export, cancellation);

    /// <summary>Connects to a server by TCP.</summary>
    /// <exception cref="IOException">The server can't be reached, or does not have the export; the message says which.</exception>
    public static Task<NbdClient> ConnectTcpAsync(string host, int port, string export, CancellationToken cancellation = default) =>
        ConnectAsync(new DnsEndPoint(host, port), export, cancellation);

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

    private static async Task<NbdClient> ConnectAsync(EndPoint server, string export, CancellationToken cancellation)
    {
        Socket socket = server is UnixDomainSocketEndPoint
            ? new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified)
            : new Socket(SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
        try
        {
            await socket.ConnectAsync(server, cancellation);
            var client = new NbdClient(new NetworkStream(socket, ownsSocket: true));
            await client.HandshakeAsync(export, cancellation);
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

    private async Task HandshakeAsync(string export, CancellationToken cancellation)
    {
        byte[] greeting = await ReceiveAsync(18, cancellation);
        if (BinaryPrimitives.ReadUInt64BigEndian(greeting) != NbdMagic.Greeting
            || BinaryPrimitives.ReadUInt64BigEndian(greeting.AsSpan(8)) != NbdMagic.Option)
        {
            throw new IOException("the server does not speak NBD (newstyle)");
        }
        byte[] name = Encoding.UTF8.GetBytes(export);
        byte[] message = new byte[4 + 16 + 4 + name.Length + 2];
        BinaryPrimitives.WriteUInt32BigEndian(message, (uint)(NbdClientFlags.FixedNewstyle | NbdClientFlags.NoZeroes));
        BinaryPrimitives.WriteUInt64BigEndian(message.AsSpan(4), NbdMagic.Option);
        BinaryPrimitives.WriteUInt32BigEndian(message.AsSpan(12), (uint)NbdOption.Go);
        BinaryPrimitives.WriteUInt32BigEndian(message.AsSpan(16), (uint)(4 + name.Length + 2));
        BinaryPrimitives.WriteUInt32BigEndian(message.AsSpan(20), (uint)name.Length);
        name.CopyTo(message, 24);
        await _stream.WriteAsync(message, cancellation);
        while (await TakeOptionReplyAsync(export, cancellation))
        {
        }
    }

    /// <summary>Takes one reply to GO; false when it was the last.</summary>
    private async Task<bool> TakeOptionReplyAsync(string export, CancellationToken cancellation)
    {
        byte[] header = await ReceiveAsync(20, cancellation);
        if (BinaryPrimitives.ReadUInt64BigEndian(header) != NbdMagic.OptionReply)
            throw new IOException("the server broke the protocol: no option reply");
        var reply = (NbdOptionReply)BinaryPrimitives.ReadUInt32BigEndian(header.AsSpan(12));
        uint length = BinaryPrimitives.ReadUInt32BigEndian(header.AsSpan(16));
        if (length > MaxOptionReplyBytes)
            throw new IOException($"the server broke the protocol: an option reply of {length} bytes");
        byte[] data = await ReceiveAsync((int)length, cancellation);
        switch (reply)
        {
            case NbdOptionReply.Acknowledge:
                return false;
            case NbdOptionReply.Info when data.Length >= 12
                && BinaryPrimitives.ReadUInt16BigEndian(data) == (ushort)NbdInfoType.Export:
                Bytes = BinaryPrimitives.ReadInt64BigEndian(data.AsSpan(2));
                _flags = (NbdTransmissionFlags)BinaryPrimitives.ReadUInt16BigEndian(data.AsSpan(10));
                return true;
            case NbdOptionReply.Info:
                return true;
            default:
                string reason = data.Length > 0 ? Encoding.UTF8.GetString(data) : reply.ToString();
                throw new IOException($"the server refuses export '{export}': {reason}");
        }
    }

    private async Task RequestAsync(NbdCommand command, NbdCommandFlags flags, long offset, uint length,
        ReadOnlyMemory<byte> payload, Memory<byte> target, CancellationToken cancellation)
    {
        ulong cookie = await SendAsync(command, flags, offset, length, payload, cancellation);
        byte[] reply = await ReceiveAsync(16, cancellation);
        if (BinaryPrimitives.ReadUInt32BigEndian(reply) != NbdMagic.SimpleReply
            || BinaryPrimitives.ReadUInt64BigEndian(reply.AsSpan(8)) != cookie)
        {
            throw new IOException("the server broke the protocol: no reply to the request");
        }
        var status = (NbdError)BinaryPrimitives.ReadUInt32BigEndian(reply.AsSpan(4));
        if (status != NbdError.None)
            throw new IOException($"{command} of {length} bytes at {offset} failed: {status}");
        await _stream.ReadExactlyAsync(target, cancellation);
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

    private async Task<byte[]> ReceiveAsync(int bytes, CancellationToken cancellation)
    {
        byte[] received = new byte[bytes];
        await _stream.ReadExactlyAsync(received, cancellation);
        return received;
    }
}
