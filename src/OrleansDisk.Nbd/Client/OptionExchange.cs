using System.Buffers.Binary;
using System.Text;
using OrleansDisk.Nbd.Protocol;

namespace OrleansDisk.Nbd.Client;

/// <summary>Options and their replies, in the client's part of the handshake.</summary>
/// <param name="stream">Where options go.</param>
/// <param name="buffer">Where replies come from.</param>
internal sealed class OptionExchange(Stream stream, ReceiveBuffer buffer)
{
    private const int OptionHeaderBytes = 16;
    private const int ReplyHeaderBytes = 20;
    private const int MaxReplyBytes = 64 << 10;

    /// <summary>How many replies a server may give to one option, beside the last.</summary>
    private const int MaxReplies = 64 << 10;

    /// <summary>Sends an option and takes all replies to it.</summary>
    /// <param name="option">The option.</param>
    /// <param name="data">Its data.</param>
    /// <param name="take">Called with each reply that is neither the last nor an error.</param>
    /// <param name="cancellation">Ends waiting; the connection is of no use afterwards.</param>
    /// <returns>The last reply, with an error's sentence for people.</returns>
    /// <exception cref="IOException">The server broke the protocol, or went.</exception>
    public async Task<(NbdOptionReply Reply, string Text)> RunAsync(
        NbdOption option, byte[] data, Action<NbdOptionReply, byte[]> take, CancellationToken cancellation)
    {
        await SendAsync(option, data, cancellation);
        for (int count = 0; count < MaxReplies; count++)
        {
            (NbdOptionReply reply, byte[] content) = await ReceiveAsync(option, cancellation);
            if (reply == NbdOptionReply.Acknowledge)
                return (reply, "");
            if (((uint)reply & 0x80000000) != 0)
                return (reply, Encoding.UTF8.GetString(content));
            take(reply, content);
        }
        throw new IOException($"the server broke the protocol: more than {MaxReplies} replies to {option}");
    }

    /// <summary>Sends an option alone.</summary>
    public async Task SendAsync(NbdOption option, byte[] data, CancellationToken cancellation)
    {
        byte[] message = new byte[OptionHeaderBytes + data.Length];
        BinaryPrimitives.WriteUInt64BigEndian(message, NbdMagic.Option);
        BinaryPrimitives.WriteUInt32BigEndian(message.AsSpan(8), (uint)option);
        BinaryPrimitives.WriteUInt32BigEndian(message.AsSpan(12), (uint)data.Length);
        data.CopyTo(message, OptionHeaderBytes);
        await stream.WriteAsync(message, cancellation);
    }

    private async Task<(NbdOptionReply Reply, byte[] Data)> ReceiveAsync(NbdOption option, CancellationToken cancellation)
    {
        ReadOnlyMemory<byte> header = await buffer.PeekAsync(ReplyHeaderBytes, cancellation);
        if (BinaryPrimitives.ReadUInt64BigEndian(header.Span) != NbdMagic.OptionReply
            || BinaryPrimitives.ReadUInt32BigEndian(header.Span[8..]) != (uint)option)
        {
            throw new IOException($"the server broke the protocol: no reply to {option}");
        }
        var reply = (NbdOptionReply)BinaryPrimitives.ReadUInt32BigEndian(header.Span[12..]);
        uint length = BinaryPrimitives.ReadUInt32BigEndian(header.Span[16..]);
        if (length > MaxReplyBytes)
            throw new IOException($"the server broke the protocol: an option reply of {length} bytes");
        buffer.Skip(ReplyHeaderBytes);
        byte[] data = new byte[length];
        await buffer.TakeAsync(data, cancellation);
        return (reply, data);
    }
}
