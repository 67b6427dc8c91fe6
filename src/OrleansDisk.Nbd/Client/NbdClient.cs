using System.Buffers;
using System.Net.Sockets;
using OrleansDisk.Nbd.Protocol;

namespace OrleansDisk.Nbd.Client;

/// <summary>
/// A connection to an NBD export. Calls may overlap and come from any thread: their requests are under way side by side, and
/// the server answers them in any order. Offsets and lengths are bytes.
/// </summary>
public sealed class NbdClient : IAsyncDisposable
{
    /// <summary>A payload up to this goes out in one piece with its header.</summary>
    private const int MaxJoinedBytes = 64 << 10;

    private readonly Stream _stream;
    private readonly NegotiatedExport _export;
    private readonly PendingRequests _pending = new();
    private readonly SemaphoreSlim _sending = new(1);
    private readonly Task _receiving;

    private NbdClient(Stream stream, ReceiveBuffer buffer, NegotiatedExport export)
    {
        (_stream, _export) = (stream, export);
        _receiving = ReceiveAsync(new ReplyReceiver(buffer, _pending, export));
    }

    /// <summary>Size of the export in bytes.</summary>
    public long Bytes => _export.Bytes;

    /// <summary>What offsets and lengths must be multiples of; a power of two.</summary>
    public int MinBlockBytes => (int)_export.MinBlockBytes;

    public bool IsReadOnly => Offers(NbdTransmissionFlags.ReadOnly);

    public bool CanFlush => Offers(NbdTransmissionFlags.SendFlush);

    public bool CanFua => Offers(NbdTransmissionFlags.SendFua);

    public bool CanTrim => Offers(NbdTransmissionFlags.SendTrim);

    public bool CanWriteZeroes => Offers(NbdTransmissionFlags.SendWriteZeroes);

    /// <summary>Whether the server tells of the metadata context that was asked for.</summary>
    public bool HasBlockStatus => _export.ContextId is not null;

    /// <summary>Whether the connection has ended: no request can succeed any more.</summary>
    public bool HasFailed => _pending.HasFailed;

    private int MaxPayloadBytes => (int)Math.Min(_export.MaxBlockBytes, NegotiatedExport.DefaultMaxBlockBytes);

    /// <summary>Connects to a server on a unix socket.</summary>
    /// <param name="path">The socket.</param>
    /// <param name="export">Name of the export.</param>
    /// <param name="context">A metadata context to ask for, such as base:allocation; null: none.</param>
    /// <param name="cancellation">Ends the attempt.</param>
    /// <exception cref="IOException">The server can't be reached, or does not have the export; the message says which.</exception>
    public static Task<NbdClient> ConnectUnixAsync(string path, string export, string? context = null, CancellationToken cancellation = default) =>
        ConnectAsync(new NbdClientOptions { Server = new UnixDomainSocketEndPoint(path), Export = export, MetaContext = context }, cancellation);

    /// <summary>Connects to a server.</summary>
    /// <exception cref="IOException">The server can't be reached, or does not have the export; the message says which.</exception>
    public static Task<NbdClient> ConnectAsync(NbdClientOptions options, CancellationToken cancellation = default) =>
        HandshakeAsync(options, async handshake =>
        {
            NegotiatedExport export = await handshake.RunAsync(cancellation);
            return new NbdClient(handshake.Stream, handshake.Buffer, export);
        }, cancellation);

    /// <summary>What a server has to offer; the export that the options name does not matter.</summary>
    /// <exception cref="IOException">The server can't be reached, or does not tell; the message says which.</exception>
    public static Task<IReadOnlyList<NbdListedExport>> ListAsync(NbdClientOptions options, CancellationToken cancellation = default) =>
        HandshakeAsync(options, async handshake =>
        {
            IReadOnlyList<NbdListedExport> exports = await handshake.ListAsync(cancellation);
            await handshake.Stream.DisposeAsync();
            return exports;
        }, cancellation);

    private static async Task<T> HandshakeAsync<T>(
        NbdClientOptions options, Func<ClientHandshake, Task<T>> run, CancellationToken cancellation)
    {
        Stream stream = new NetworkStream(await options.ConnectAsync(cancellation), ownsSocket: true);
        try
        {
            return await run(new ClientHandshake(options, stream));
        }
        catch (Exception e)
        {
            await stream.DisposeAsync();
            if (e is EndOfStreamException || e.InnerException is SocketException)
                throw new IOException($"'{options.ServerName}' has closed the connection in the handshake", e);
            throw;
        }
    }

    /// <summary>Fills the buffer.</summary>
    /// <exception cref="NbdRequestException">The server refuses.</exception>
    /// <exception cref="NbdConnectionException">The connection has ended.</exception>
    public async Task ReadAsync(long offset, Memory<byte> buffer)
    {
        while (buffer.Length > 0)
        {
            Memory<byte> part = buffer[..Math.Min(buffer.Length, MaxPayloadBytes)];
            await RunAsync(new PendingRequest(NbdCommand.Read, offset, (uint)part.Length, part), NbdCommandFlags.None, default);
            offset += part.Length;
            buffer = buffer[part.Length..];
        }
    }

    /// <summary>Writes all bytes; they belong to the call until it completes.</summary>
    /// <exception cref="NbdRequestException">The server refuses.</exception>
    /// <exception cref="NbdConnectionException">The connection has ended; whether the bytes were written is not known.</exception>
    public async Task WriteAsync(long offset, ReadOnlyMemory<byte> data, bool fua = false)
    {
        while (data.Length > 0)
        {
            ReadOnlyMemory<byte> part = data[..Math.Min(data.Length, MaxPayloadBytes)];
            await RunAsync(new PendingRequest(NbdCommand.Write, offset, (uint)part.Length, default), Flags(fua), part);
            offset += part.Length;
            data = data[part.Length..];
        }
    }

    /// <summary>Makes a range read as zeros.</summary>
    /// <param name="offset">First byte.</param>
    /// <param name="bytes">Length.</param>
    /// <param name="mayUnmap">Whether its space may be given up.</param>
    /// <param name="fua">Whether it is on stable storage before this completes.</param>
    public Task WriteZeroesAsync(long offset, uint bytes, bool mayUnmap = true, bool fua = false) =>
        RunAsync(new PendingRequest(NbdCommand.WriteZeroes, offset, bytes, default),
            Flags(fua) | (mayUnmap ? NbdCommandFlags.None : NbdCommandFlags.NoHole), default);

    /// <summary>Gives up what a range holds.</summary>
    public Task TrimAsync(long offset, uint bytes, bool fua = false) =>
        RunAsync(new PendingRequest(NbdCommand.Trim, offset, bytes, default), Flags(fua), default);

    /// <summary>Puts on stable storage what was acknowledged.</summary>
    public Task FlushAsync() => RunAsync(new PendingRequest(NbdCommand.Flush, 0, 0, default), NbdCommandFlags.None, default);

    /// <summary>What the metadata context says of the range's start, in order; the last extent may go past the range's end.</summary>
    /// <param name="offset">First byte.</param>
    /// <param name="bytes">Length.</param>
    /// <param name="onlyFirst">Whether one extent is enough.</param>
    /// <returns>At least one extent.</returns>
    /// <exception cref="InvalidOperationException">There is no context: see <see cref="HasBlockStatus"/>.</exception>
    public async Task<IReadOnlyList<NbdExtent>> GetBlockStatusAsync(long offset, uint bytes, bool onlyFirst = false)
    {
        if (!HasBlockStatus)
            throw new InvalidOperationException("no metadata context was agreed on");
        var request = new PendingRequest(NbdCommand.BlockStatus, offset, bytes, default);
        await RunAsync(request, onlyFirst ? NbdCommandFlags.RequestOne : NbdCommandFlags.None, default);
        return request.Extents;
    }

    /// <summary>Closes the connection, with a goodbye when nothing is under way; what is under way fails.</summary>
    public async ValueTask DisposeAsync()
    {
        try
        {
            if (_pending.AreNone)
                await SendAsync(new PendingRequest(NbdCommand.Disconnect, 0, 0, default), NbdCommandFlags.None, default);
        }
        catch (Exception e) when (IsConnectionFailure(e))
        {
            // The server was faster.
        }
        await _stream.DisposeAsync();
        await _receiving;
        await _sending.WaitAsync();
        _sending.Dispose();
    }

    private static NbdCommandFlags Flags(bool fua) => fua ? NbdCommandFlags.Fua : NbdCommandFlags.None;

    private static bool IsConnectionFailure(Exception e) => e is IOException or SocketException or ObjectDisposedException;

    private bool Offers(NbdTransmissionFlags flag) => (_export.Flags & flag) != 0;

    private async Task RunAsync(PendingRequest request, NbdCommandFlags flags, ReadOnlyMemory<byte> payload)
    {
        _pending.Add(request);
        try
        {
            await SendAsync(request, flags, payload);
        }
        catch (Exception e) when (IsConnectionFailure(e))
        {
            // Half a request makes the connection useless for all. Only the receiver fails them: it may be filling their buffers.
            await _stream.DisposeAsync();
        }
        await request.Completion;
    }

    private async Task SendAsync(PendingRequest request, NbdCommandFlags flags, ReadOnlyMemory<byte> payload)
    {
        int joinedBytes = payload.Length <= MaxJoinedBytes ? payload.Length : 0;
        byte[] message = ArrayPool<byte>.Shared.Rent(RequestHeader.HeaderBytes + joinedBytes);
        new RequestHeader(NbdMagic.Request, flags, request.Command, request.Cookie, (ulong)request.Offset, request.Length).WriteTo(message);
        payload[..joinedBytes].CopyTo(message.AsMemory(RequestHeader.HeaderBytes));
        await _sending.WaitAsync();
        try
        {
            await _stream.WriteAsync(message.AsMemory(0, RequestHeader.HeaderBytes + joinedBytes));
            if (payload.Length > joinedBytes)
                await _stream.WriteAsync(payload);
        }
        finally
        {
            _sending.Release();
            ArrayPool<byte>.Shared.Return(message);
        }
    }

    private async Task ReceiveAsync(ReplyReceiver receiver)
    {
        try
        {
            while (true)
                await receiver.TakeAsync();
        }
        catch (NbdConnectionException e)
        {
            _pending.Fail(e);
        }
        catch (EndOfStreamException e)
        {
            _pending.Fail(new NbdConnectionException("the server has closed the connection", e));
        }
        catch (Exception e) when (IsConnectionFailure(e))
        {
            _pending.Fail(new NbdConnectionException($"the connection to the server was lost: {e.Message}", e));
        }
    }
}
