using System.Buffers.Binary;
using System.Net.Sockets;
using OrleansDisk.Nbd.Protocol;

namespace OrleansDisk.Nbd.Tests.Fixtures;

/// <summary>A reply to an option.</summary>
internal readonly record struct OptionReply(NbdOptionReply Type, byte[] Data)
{
    public string Text => System.Text.Encoding.UTF8.GetString(Data);
}

/// <summary>A simple reply, or one chunk of a structured reply.</summary>
internal readonly record struct ReplyChunk(ulong Cookie, NbdChunkType Type, bool IsLast, byte[] Data)
{
    /// <summary>The error of an error chunk or of a simple reply.</summary>
    public NbdError Error { get; init; }

    /// <summary>The words of an error chunk.</summary>
    public string Message => System.Text.Encoding.UTF8.GetString(Data.AsSpan(6));
}

/// <summary>A client that sends exactly what a test says, rules or not.</summary>
internal sealed class RawClient(Socket socket) : IDisposable
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(20);

    public Socket Socket { get; } = socket;

    public ushort TransmissionFlags { get; private set; }

    public ulong ExportBytes { get; private set; }

    /// <summary>Reads the greeting and answers with <paramref name="clientFlags"/>.</summary>
    public void Greet(uint clientFlags = 3)
    {
        byte[] greeting = Receive(18);
        Assert.Equal(NbdMagic.Greeting, BinaryPrimitives.ReadUInt64BigEndian(greeting));
        Assert.Equal(NbdMagic.Option, BinaryPrimitives.ReadUInt64BigEndian(greeting.AsSpan(8)));
        Assert.Equal(3, BinaryPrimitives.ReadUInt16BigEndian(greeting.AsSpan(16)));
        Send(Wire.U32(clientFlags));
    }

    public void SendOption(NbdOption option, ReadOnlySpan<byte> data) =>
        Send([.. Wire.U64(NbdMagic.Option), .. Wire.U32((uint)option), .. Wire.U32((uint)data.Length), .. data]);

    /// <summary>Sends an option and reads replies up to the final one.</summary>
    public List<OptionReply> Option(NbdOption option, ReadOnlySpan<byte> data)
    {
        SendOption(option, data);
        var replies = new List<OptionReply>();
        do
            replies.Add(ReceiveOptionReply(option));
        while (replies[^1].Type != NbdOptionReply.Acknowledge && (uint)replies[^1].Type < 0x80000000);
        return replies;
    }

    public void Acknowledged(NbdOption option, ReadOnlySpan<byte> data) =>
        Assert.Equal(NbdOptionReply.Acknowledge, Option(option, data)[^1].Type);

    public void Fails(NbdOption option, ReadOnlySpan<byte> data, NbdOptionReply error) =>
        Assert.Equal(error, Assert.Single(Option(option, data)).Type);

    public void Go(string export)
    {
        List<OptionReply> replies = Option(NbdOption.Go, Wire.Info(export));
        Assert.Equal(NbdOptionReply.Acknowledge, replies[^1].Type);
        byte[] info = replies.First(reply => reply.Type == NbdOptionReply.Info && reply.Data[1] == 0).Data;
        ExportBytes = BinaryPrimitives.ReadUInt64BigEndian(info.AsSpan(2));
        TransmissionFlags = BinaryPrimitives.ReadUInt16BigEndian(info.AsSpan(10));
    }

    public void SendRequest(
        NbdCommand command, ulong cookie, ulong offset, uint length, NbdCommandFlags flags = 0, byte[]? payload = null)
    {
        byte[] message = new byte[RequestHeader.HeaderBytes + (payload?.Length ?? 0)];
        new RequestHeader(NbdMagic.Request, flags, command, cookie, offset, length).WriteTo(message);
        payload?.CopyTo(message, RequestHeader.HeaderBytes);
        Send(message);
    }

    /// <summary>Sends a request and returns the only chunk of its reply.</summary>
    public ReplyChunk Request(
        NbdCommand command, ulong offset, uint length, NbdCommandFlags flags = 0, byte[]? payload = null)
    {
        ulong cookie = 0xc00c1e00 + (ulong)command;
        SendRequest(command, cookie, offset, length, flags, payload);
        ReplyChunk reply = ReceiveReply();
        Assert.Equal(cookie, reply.Cookie);
        Assert.True(reply.IsLast);
        return reply;
    }

    public ReplyChunk Write(ulong offset, byte[] payload, NbdCommandFlags flags = 0) =>
        Request(NbdCommand.Write, offset, (uint)payload.Length, flags, payload);

    /// <summary>A read, put together from its chunks.</summary>
    public byte[] Read(ulong offset, uint length, NbdCommandFlags flags = 0)
    {
        SendRequest(NbdCommand.Read, 77, offset, length, flags);
        byte[] bytes = new byte[length];
        long covered = 0;
        ReplyChunk chunk;
        do
        {
            chunk = ReceiveReply();
            Assert.Equal(77u, chunk.Cookie);
            int start = (int)(BinaryPrimitives.ReadUInt64BigEndian(chunk.Data) - offset);
            Assert.True(chunk.Type is NbdChunkType.OffsetData or NbdChunkType.OffsetHole);
            if (chunk.Type == NbdChunkType.OffsetData)
                chunk.Data.AsSpan(8).CopyTo(bytes.AsSpan(start));
            covered += chunk.Type == NbdChunkType.OffsetData
                ? chunk.Data.Length - 8
                : BinaryPrimitives.ReadUInt32BigEndian(chunk.Data.AsSpan(8));
        }
        while (!chunk.IsLast);
        Assert.Equal(length, covered);
        return bytes;
    }

    /// <summary>Reads a reply; of a simple one with data, <paramref name="simpleDataBytes"/> of them.</summary>
    public ReplyChunk ReceiveReply(int simpleDataBytes = 0)
    {
        byte[] start = Receive(16);
        ulong cookie = BinaryPrimitives.ReadUInt64BigEndian(start.AsSpan(8));
        uint magic = BinaryPrimitives.ReadUInt32BigEndian(start);
        uint second = BinaryPrimitives.ReadUInt32BigEndian(start.AsSpan(4));
        if (magic == NbdMagic.SimpleReply)
        {
            byte[] simpleData = second == 0 ? Receive(simpleDataBytes) : [];
            return new ReplyChunk(cookie, NbdChunkType.None, true, simpleData) { Error = (NbdError)second };
        }
        Assert.Equal(NbdMagic.StructuredReply, magic);
        byte[] data = Receive((int)BinaryPrimitives.ReadUInt32BigEndian(Receive(4)));
        var type = (NbdChunkType)(second & 0xffff);
        uint error = type == NbdChunkType.Error ? BinaryPrimitives.ReadUInt32BigEndian(data) : 0;
        return new ReplyChunk(cookie, type, (second >> 16) == 1, data) { Error = (NbdError)error };
    }

    public void Send(ReadOnlySpan<byte> bytes)
    {
        while (bytes.Length > 0)
            bytes = bytes[Socket.Send(bytes)..];
    }

    public byte[] Receive(int count)
    {
        Socket.ReceiveTimeout = (int)Patience.TotalMilliseconds;
        byte[] bytes = new byte[count];
        for (int done = 0; done < count;)
        {
            int received = Socket.Receive(bytes.AsSpan(done));
            Assert.True(received > 0, $"the server closed the connection {done} bytes into {count}");
            done += received;
        }
        return bytes;
    }

    /// <summary>Reads until the server closes.</summary>
    public void IsClosed()
    {
        Socket.ReceiveTimeout = (int)Patience.TotalMilliseconds;
        byte[] rest = new byte[4096];
        try
        {
            while (Socket.Receive(rest) > 0)
            {
            }
        }
        catch (SocketException e) when (e.SocketErrorCode == SocketError.ConnectionReset)
        {
            // Closed with bytes of ours unread.
        }
    }

    public void Dispose() => Socket.Dispose();

    private OptionReply ReceiveOptionReply(NbdOption option)
    {
        byte[] header = Receive(20);
        Assert.Equal(NbdMagic.OptionReply, BinaryPrimitives.ReadUInt64BigEndian(header));
        Assert.Equal((uint)option, BinaryPrimitives.ReadUInt32BigEndian(header.AsSpan(8)));
        var type = (NbdOptionReply)BinaryPrimitives.ReadUInt32BigEndian(header.AsSpan(12));
        return new OptionReply(type, Receive((int)BinaryPrimitives.ReadUInt32BigEndian(header.AsSpan(16))));
    }
}
