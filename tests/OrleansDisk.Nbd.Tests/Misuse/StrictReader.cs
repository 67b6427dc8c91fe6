using System.Buffers.Binary;
using System.Net.Sockets;
using OrleansDisk.Nbd.Protocol;

namespace OrleansDisk.Nbd.Tests.Misuse;

/// <summary>A request as a client sent it, and what the protocol says of it.</summary>
/// <param name="Command">The command.</param>
/// <param name="Offset">First byte.</param>
/// <param name="Length">Length of the range.</param>
/// <param name="Flags">Its flags.</param>
/// <param name="IsValid">Whether the server must do it; else it must answer with an error.</param>
internal readonly record struct SentRequest(NbdCommand Command, ulong Offset, ulong Length, NbdCommandFlags Flags, bool IsValid);

/// <summary>
/// Reads what a server sends and holds every byte of it against the protocol: magics, lengths, cookies, chunks, one
/// reply for each request.
/// </summary>
internal sealed class StrictReader(Socket socket, bool isStructured, bool isExtended = false)
{
    private const int MaxChunkBytes = 64 << 20;
    private const int MaxOptionReplyBytes = 64 << 10;
    private readonly Dictionary<ulong, List<SentRequest>> _outstanding = [];
    private readonly Dictionary<ulong, ulong> _covered = [];
    private (ulong Cookie, SentRequest Request)? _unfinished;

    /// <summary>Replies that are to come.</summary>
    public int OutstandingCount => _outstanding.Values.Sum(requests => requests.Count);

    /// <summary>The server has closed.</summary>
    public bool HasEnded { get; private set; }

    public void Expect(ulong cookie, SentRequest request)
    {
        if (!_outstanding.TryGetValue(cookie, out List<SentRequest>? requests))
            _outstanding.Add(cookie, requests = []);
        requests.Add(request);
    }

    /// <summary>A request that was not sent to its end: the server may say that it failed, or nothing.</summary>
    public void ExpectNothingOrError(ulong cookie, SentRequest request) => _unfinished = (cookie, request with { IsValid = false });

    /// <summary>The replies to one option up to the last; null when the server closed.</summary>
    public NbdOptionReply? ReadOptionReply(uint option)
    {
        while (true)
        {
            if (Read(20) is not { } header)
                return null;
            Assert.Equal(NbdMagic.OptionReply, BinaryPrimitives.ReadUInt64BigEndian(header));
            Assert.Equal(option, BinaryPrimitives.ReadUInt32BigEndian(header.AsSpan(8)));
            var type = (NbdOptionReply)BinaryPrimitives.ReadUInt32BigEndian(header.AsSpan(12));
            Assert.True(Enum.IsDefined(type), $"reply type {type}");
            uint bytes = BinaryPrimitives.ReadUInt32BigEndian(header.AsSpan(16));
            Assert.True(bytes <= MaxOptionReplyBytes, $"an option reply of {bytes} bytes");
            if (Read((int)bytes) is null)
                return null;
            if (type == NbdOptionReply.Acknowledge || (uint)type >= 0x80000000)
                return type;
        }
    }

    /// <summary>Reads replies until none is to come or the server closes.</summary>
    public void ReadReplies()
    {
        while (!HasEnded && OutstandingCount > 0)
            ReadReply();
    }

    /// <summary>Reads replies until the server closes; nothing but replies may come.</summary>
    public void ReadToEnd()
    {
        while (!HasEnded)
            ReadReply();
    }

    private void ReadReply()
    {
        if (Read(16) is not { } start)
            return;
        ulong cookie = BinaryPrimitives.ReadUInt64BigEndian(start.AsSpan(8));
        if (!_outstanding.ContainsKey(cookie) && _unfinished is { } unfinished && unfinished.Cookie == cookie)
            Expect(cookie, unfinished.Request);
        Assert.True(_outstanding.TryGetValue(cookie, out List<SentRequest>? requests), $"a reply to nothing: cookie {cookie:x}");
        SentRequest request = requests[0];
        if (isExtended)
        {
            ReadExtended(cookie, request, start);
            return;
        }
        uint magic = BinaryPrimitives.ReadUInt32BigEndian(start);
        uint second = BinaryPrimitives.ReadUInt32BigEndian(start.AsSpan(4));
        if (magic == NbdMagic.SimpleReply)
        {
            Assert.False(isStructured && request.Command == NbdCommand.Read, "a simple reply to a read after structured replies were negotiated");
            ReadSimple(cookie, request, (NbdError)second);
            return;
        }
        Assert.Equal(NbdMagic.StructuredReply, magic);
        Assert.True(isStructured, "a structured reply that was not negotiated");
        if (Read(4) is { } lengthBytes)
            ReadChunk(cookie, request, second, BinaryPrimitives.ReadUInt32BigEndian(lengthBytes));
    }

    private void ReadExtended(ulong cookie, SentRequest request, byte[] start)
    {
        Assert.Equal(NbdMagic.ExtendedReply, BinaryPrimitives.ReadUInt32BigEndian(start));
        if (Read(16) is not { } rest)
            return;
        Assert.Equal(request.Offset, BinaryPrimitives.ReadUInt64BigEndian(rest));
        ulong bytes = BinaryPrimitives.ReadUInt64BigEndian(rest.AsSpan(8));
        Assert.True(bytes <= MaxChunkBytes, $"a chunk of {bytes} bytes");
        ReadChunk(cookie, request, BinaryPrimitives.ReadUInt32BigEndian(start.AsSpan(4)), (uint)bytes);
    }

    private void ReadSimple(ulong cookie, SentRequest request, NbdError error)
    {
        Judge(request, error);
        if (error == NbdError.None && request.Command == NbdCommand.Read && Read((int)request.Length) is null)
            return;
        End(cookie);
    }

    private void ReadChunk(ulong cookie, SentRequest request, uint flagsAndType, uint bytes)
    {
        bool isLast = flagsAndType >> 16 == 1;
        Assert.True(flagsAndType >> 16 <= 1, "unknown flags of a chunk");
        Assert.True(bytes <= MaxChunkBytes, $"a chunk of {bytes} bytes");
        if (Read((int)bytes) is not { } data)
            return;
        switch ((NbdChunkType)(flagsAndType & 0xffff))
        {
            case NbdChunkType.None:
                Assert.True(bytes == 0 && isLast, "a chunk that says nothing says something");
                Judge(request, NbdError.None);
                break;
            case NbdChunkType.OffsetData:
                Cover(cookie, request, BinaryPrimitives.ReadUInt64BigEndian(data), bytes - 8);
                break;
            case NbdChunkType.OffsetHole:
                Assert.Equal(12u, bytes);
                Cover(cookie, request, BinaryPrimitives.ReadUInt64BigEndian(data), BinaryPrimitives.ReadUInt32BigEndian(data.AsSpan(8)));
                break;
            case NbdChunkType.BlockStatus:
                Assert.False(isExtended, "a block status that is not extended");
                JudgeBlockStatus(request, data);
                break;
            case NbdChunkType.BlockStatusExtended:
                Assert.True(isExtended, "an extended block status that was not negotiated");
                JudgeExtendedStatus(request, data);
                break;
            case NbdChunkType.Error:
                Assert.Equal(bytes, 6u + BinaryPrimitives.ReadUInt16BigEndian(data.AsSpan(4)));
                Judge(request, (NbdError)BinaryPrimitives.ReadUInt32BigEndian(data));
                break;
            default:
                Assert.Fail($"an unknown chunk type {flagsAndType & 0xffff:x}");
                break;
        }
        if (!isLast)
            return;
        if (_covered.Remove(cookie, out ulong covered))
            Assert.Equal(request.Length, covered);
        End(cookie);
    }

    private void Cover(ulong cookie, SentRequest request, ulong offset, uint bytes)
    {
        Assert.Equal(NbdCommand.Read, request.Command);
        Judge(request, NbdError.None);
        Assert.True(bytes > 0 && offset >= request.Offset && offset + bytes <= request.Offset + request.Length, "a chunk outside its read");
        ulong covered = _covered.GetValueOrDefault(cookie);
        Assert.True(covered == 0 || (request.Flags & NbdCommandFlags.DontFragment) == 0, "a read in pieces that must not be");
        _covered[cookie] = covered + bytes;
    }

    private static void JudgeBlockStatus(SentRequest request, byte[] data)
    {
        Judge(request, NbdError.None);
        Assert.Equal(NbdCommand.BlockStatus, request.Command);
        Assert.True(data.Length >= 12 && data.Length % 8 == 4, "a block status of no extents");
        Assert.Equal(1u, BinaryPrimitives.ReadUInt32BigEndian(data));
        bool isOne = (request.Flags & NbdCommandFlags.RequestOne) != 0;
        Assert.True(!isOne || data.Length == 12, "more than the one extent that was asked for");
        for (int at = 4; at < data.Length; at += 8)
            Assert.NotEqual(0u, BinaryPrimitives.ReadUInt32BigEndian(data.AsSpan(at)));
    }

    private static void JudgeExtendedStatus(SentRequest request, byte[] data)
    {
        Judge(request, NbdError.None);
        Assert.Equal(NbdCommand.BlockStatus, request.Command);
        Assert.Equal(1u, BinaryPrimitives.ReadUInt32BigEndian(data));
        uint count = BinaryPrimitives.ReadUInt32BigEndian(data.AsSpan(4));
        Assert.True(count > 0 && data.Length == 8 + count * 16, "a block status whose count is wrong");
        Assert.True((request.Flags & NbdCommandFlags.RequestOne) == 0 || count == 1, "more than the one extent that was asked for");
        for (int at = 8; at < data.Length; at += 16)
            Assert.NotEqual(0ul, BinaryPrimitives.ReadUInt64BigEndian(data.AsSpan(at)));
    }

    private static void Judge(SentRequest request, NbdError error)
    {
        Assert.True(Enum.IsDefined(error), $"error {error} is none of the protocol's");
        Assert.True(request.IsValid == (error == NbdError.None), $"{request}: {error}");
    }

    private void End(ulong cookie)
    {
        _outstanding[cookie].RemoveAt(0);
        if (_outstanding[cookie].Count == 0)
            _outstanding.Remove(cookie);
    }

    /// <summary>Exactly so many bytes, or null when the server has closed.</summary>
    private byte[]? Read(int count)
    {
        byte[] bytes = new byte[count];
        for (int done = 0; done < count;)
        {
            int received = Receive(bytes.AsSpan(done));
            if (received == 0)
            {
                HasEnded = true;
                return null;
            }
            done += received;
        }
        return bytes;
    }

    private int Receive(Span<byte> target)
    {
        try
        {
            return socket.Receive(target);
        }
        catch (SocketException e) when (e.SocketErrorCode == SocketError.ConnectionReset)
        {
            return 0; // closed with bytes of ours unread
        }
    }
}
