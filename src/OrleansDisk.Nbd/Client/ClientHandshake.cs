using System.Buffers.Binary;
using System.Text;
using OrleansDisk.Nbd.Protocol;

namespace OrleansDisk.Nbd.Client;

/// <summary>What a client and a server came to agree on.</summary>
/// <param name="Bytes">Size of the export.</param>
/// <param name="Flags">What the export offers.</param>
/// <param name="IsStructured">Whether replies may come in chunks.</param>
/// <param name="ContextId">The number of the metadata context in replies, or null: the server does not have it.</param>
internal readonly record struct ClientSession(long Bytes, NbdTransmissionFlags Flags, bool IsStructured, uint? ContextId);

/// <summary>The client's side of the handshake (NBD protocol, "Fixed newstyle negotiation"): one option at a time, GO at the end.</summary>
/// <param name="stream">The connection.</param>
/// <param name="export">Name of the export.</param>
/// <param name="context">Name of the metadata context that is wanted, or null: none.</param>
internal sealed class ClientHandshake(Stream stream, string export, string? context)
{
    private const int MaxOptionReplyBytes = 64 << 10;

    private ClientSession _session;

    /// <exception cref="IOException">The server does not speak NBD, or refuses the export.</exception>
    public async Task<ClientSession> RunAsync(CancellationToken cancellation)
    {
        byte[] greeting = await ReceiveAsync(18, cancellation);
        if (BinaryPrimitives.ReadUInt64BigEndian(greeting) != NbdMagic.Greeting
            || BinaryPrimitives.ReadUInt64BigEndian(greeting.AsSpan(8)) != NbdMagic.Option)
        {
            throw new IOException("the server does not speak NBD (newstyle)");
        }
        byte[] flags = new byte[4];
        BinaryPrimitives.WriteUInt32BigEndian(flags, (uint)(NbdClientFlags.FixedNewstyle | NbdClientFlags.NoZeroes));
        await stream.WriteAsync(flags, cancellation);
        byte[] name = WithLength(export);
        if (context is not null)
        {
            _session = _session with { IsStructured = await AskAsync(NbdOption.StructuredReply, [], cancellation) is null };
            if (_session.IsStructured)
                _ = await AskAsync(NbdOption.SetMetaContext, [.. name, 0, 0, 0, 1, .. WithLength(context)], cancellation);
        }
        if (await AskAsync(NbdOption.Go, [.. name, 0, 0], cancellation) is { } refusal)
            throw new IOException($"the server refuses export '{export}': {refusal}");
        return _session;
    }

    /// <summary>Sends an option and takes its replies; null, or why it was refused.</summary>
    private async Task<string?> AskAsync(NbdOption option, byte[] data, CancellationToken cancellation)
    {
        byte[] message = new byte[16 + data.Length];
        BinaryPrimitives.WriteUInt64BigEndian(message, NbdMagic.Option);
        BinaryPrimitives.WriteUInt32BigEndian(message.AsSpan(8), (uint)option);
        BinaryPrimitives.WriteUInt32BigEndian(message.AsSpan(12), (uint)data.Length);
        data.CopyTo(message, 16);
        await stream.WriteAsync(message, cancellation);
        while (true)
        {
            (NbdOptionReply reply, byte[] answer) = await ReceiveReplyAsync(cancellation);
            if (reply == NbdOptionReply.Acknowledge)
                return null;
            if (reply is not (NbdOptionReply.Info or NbdOptionReply.MetaContext))
                return answer.Length > 0 ? Encoding.UTF8.GetString(answer) : reply.ToString();
            Take(reply, answer);
        }
    }

    private async Task<(NbdOptionReply Reply, byte[] Data)> ReceiveReplyAsync(CancellationToken cancellation)
    {
        byte[] header = await ReceiveAsync(20, cancellation);
        if (BinaryPrimitives.ReadUInt64BigEndian(header) != NbdMagic.OptionReply)
            throw new IOException("the server broke the protocol: no option reply");
        var reply = (NbdOptionReply)BinaryPrimitives.ReadUInt32BigEndian(header.AsSpan(12));
        uint length = BinaryPrimitives.ReadUInt32BigEndian(header.AsSpan(16));
        if (length > MaxOptionReplyBytes)
            throw new IOException($"the server broke the protocol: an option reply of {length} bytes");
        return (reply, await ReceiveAsync((int)length, cancellation));
    }

    private void Take(NbdOptionReply reply, byte[] data)
    {
        if (reply == NbdOptionReply.MetaContext)
        {
            if (data.Length >= 4 && Encoding.UTF8.GetString(data.AsSpan(4)) == context)
                _session = _session with { ContextId = BinaryPrimitives.ReadUInt32BigEndian(data) };
            return;
        }
        if (data.Length < 12 || BinaryPrimitives.ReadUInt16BigEndian(data) != (ushort)NbdInfoType.Export)
            return;
        _session = _session with
        {
            Bytes = BinaryPrimitives.ReadInt64BigEndian(data.AsSpan(2)),
            Flags = (NbdTransmissionFlags)BinaryPrimitives.ReadUInt16BigEndian(data.AsSpan(10)),
        };
    }

    private static byte[] WithLength(string text)
    {
        byte[] bytes = Encoding.UTF8.GetBytes(text);
        byte[] result = new byte[4 + bytes.Length];
        BinaryPrimitives.WriteUInt32BigEndian(result, (uint)bytes.Length);
        bytes.CopyTo(result, 4);
        return result;
    }

    private async Task<byte[]> ReceiveAsync(int bytes, CancellationToken cancellation)
    {
        byte[] received = new byte[bytes];
        await stream.ReadExactlyAsync(received, cancellation);
        return received;
    }
}
