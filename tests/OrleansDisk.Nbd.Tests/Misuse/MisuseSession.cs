using System.Net.Sockets;
using OrleansDisk.Nbd.Protocol;
using OrleansDisk.Nbd.Tests.Fixtures;

namespace OrleansDisk.Nbd.Tests.Misuse;

/// <summary>
/// One connection of a client that a seed makes up: it speaks the protocol up to some point, breaks it in any way there,
/// and ends in any way. What the server answers is read strictly.
/// </summary>
internal sealed class MisuseSession
{
    private const uint MaxRequestBytes = 32 << 20;
    private const int MaxHeldOptionBytes = 64 << 10;
    private const int MaxSkippedOptionBytes = 1 << 20;
    private static readonly TimeSpan _patience = TimeSpan.FromSeconds(30);
    private readonly Random _random;
    private readonly RawClient _client;
    private readonly ulong _exportBytes;
    private readonly bool _isReadOnly;
    private readonly List<string> _story = [];
    private bool _structured;
    private bool _extended;
    private bool _hasContext;
    private bool _mayClose;

    public MisuseSession(int seed, TestServer server, ulong exportBytes, bool isReadOnly)
    {
        _random = new Random(seed);
        (_exportBytes, _isReadOnly) = (exportBytes, isReadOnly);
        _client = server.Connect();
        _client.Socket.ReceiveTimeout = (int)_patience.TotalMilliseconds;
    }

    /// <summary>What the client did, for who has to find out what went wrong.</summary>
    public string Story => string.Join("\n  ", _story);

    public void Run()
    {
        using (_client)
        {
            try
            {
                if (Greet() && Negotiate())
                    Transmit();
            }
            catch (SocketException e) when (_mayClose && IsClosing(e.SocketErrorCode))
            {
                _story.Add("the server closed while this was sent");
            }
        }
    }

    /// <summary>A send that the server's closing interrupts fails in several ways, one of which .NET takes for a timeout.</summary>
    private static bool IsClosing(SocketError error) =>
        error is SocketError.ConnectionReset or SocketError.ConnectionAborted or SocketError.Shutdown or SocketError.TimedOut;

    private bool Chance(int oneIn) => _random.Next(oneIn) == 0;

    private byte[] Noise(int maxBytes)
    {
        byte[] bytes = new byte[_random.Next(maxBytes + 1)];
        _random.NextBytes(bytes);
        return bytes;
    }

    /// <summary>Sends, mostly at once and sometimes byte by byte.</summary>
    private void Send(string what, ReadOnlySpan<byte> bytes)
    {
        _story.Add($"{what} ({bytes.Length} bytes)");
        if (bytes.Length > 200 || !Chance(10))
        {
            _client.Send(bytes);
            return;
        }
        for (int i = 0; i < bytes.Length; i++)
            _client.Send(bytes.Slice(i, 1));
    }

    private bool Greet()
    {
        if (Chance(30))
            return EndEarly("gone before the greeting");
        _client.Receive(18);
        if (Chance(20))
        {
            _mayClose = true;
            Send("noise in place of the client's flags", Noise(64));
            return EndEarly("after noise");
        }
        Send("flags", Wire.U32(3));
        return true;
    }

    /// <summary>Whether transmission begins.</summary>
    private bool Negotiate()
    {
        var reader = new StrictReader(_client.Socket, isStructured: false);
        for (int i = _random.Next(8); i > 0; i--)
        {
            (uint option, byte[] data, uint stated) = NextOption();
            SendOption(option, data, stated);
            if (stated != data.Length || option == 1)
                return EndEarly("in the middle of an option, or with an unknown export");
            NbdOptionReply? reply = reader.ReadOptionReply(option);
            _story.Add($"  answered by {reply}");
            if (reply is null)
            {
                Assert.True(_mayClose, "the server closed on an option that it must answer");
                return false;
            }
            _extended |= option == 11 && reply == NbdOptionReply.Acknowledge;
            _structured |= option is 8 or 11 && reply == NbdOptionReply.Acknowledge;
            if (option == 2)
                return EndEarly("after ABORT");
        }
        if (Chance(10))
            Flood(reader);
        if (Chance(12))
            return EndEarly("in the middle of the handshake");
        SelectContext(reader);
        Send("GO", [.. Wire.U64(NbdMagic.Option), .. Wire.U32(7), .. Wire.U32(6), .. Wire.Info("")]);
        Assert.Equal(NbdOptionReply.Acknowledge, reader.ReadOptionReply(7));
        return true;
    }

    private void SendOption(uint option, byte[] data, uint stated)
    {
        bool hasWrongMagic = Chance(25);
        ulong magic = hasWrongMagic ? (ulong)_random.NextInt64() : NbdMagic.Option;
        bool isTooLong = stated > MaxSkippedOptionBytes || (option == 1 && stated > MaxHeldOptionBytes);
        _mayClose |= hasWrongMagic || isTooLong || stated != data.Length || option is 1 or 2;
        Send($"option {option} with {stated} bytes stated{(hasWrongMagic ? ", wrong magic" : "")}",
            [.. Wire.U64(magic), .. Wire.U32(option), .. Wire.U32(stated), .. data]);
    }

    /// <summary>Whatever was asked for before, from here on the context is selected or it is not.</summary>
    private void SelectContext(StrictReader reader)
    {
        _hasContext = _structured && Chance(2);
        string[] queries = _hasContext ? ["base:allocation"] : [];
        byte[] data = Wire.MetaContext("", queries);
        Send("SET_META_CONTEXT", [.. Wire.U64(NbdMagic.Option), .. Wire.U32(10), .. Wire.U32((uint)data.Length), .. data]);
        NbdOptionReply expected = _structured ? NbdOptionReply.Acknowledge : NbdOptionReply.ErrorInvalid;
        Assert.Equal(expected, reader.ReadOptionReply(10));
    }

    private void Flood(StrictReader reader)
    {
        int count = 50 + _random.Next(200);
        uint option = Chance(2) ? 3u : 0x7000_0000u + (uint)_random.Next(100);
        byte[] one = [.. Wire.U64(NbdMagic.Option), .. Wire.U32(option), .. Wire.U32(0)];
        Send($"{count} times option {option}", [.. Enumerable.Repeat(one, count).SelectMany(bytes => bytes)]);
        for (int i = 0; i < count; i++)
            Assert.NotNull(reader.ReadOptionReply(option));
    }

    /// <summary>An option, its data, and the length that its header states, which may be another.</summary>
    private (uint Option, byte[] Data, uint Stated) NextOption()
    {
        uint option = Chance(4) ? (uint)_random.NextInt64(uint.MaxValue) : (uint)_random.Next(1, 12);
        byte[] data = option switch
        {
            1 => [.. "no such export"u8],
            7 => Wire.Info("no such export"), // the start of transmission comes later
            6 => Chance(3) ? Wire.Info("no such export") : Wire.Info("", [.. Enumerable.Range(0, _random.Next(200)).Select(_ => _random.Next(8))]),
            9 or 10 => Wire.MetaContext(Chance(4) ? "nothing" : "", [.. Enumerable.Repeat("base:allocation", _random.Next(4))]),
            3 or 8 or 11 => [],
            _ => Noise(300),
        };
        switch (_random.Next(7))
        {
            case 0 when data.Length > 0:
                data[_random.Next(data.Length)] ^= (byte)(1 << _random.Next(8));
                break;
            case 1 when data.Length > 0:
                data = data[.._random.Next(data.Length)];
                break;
            case 2:
                data = [.. data, .. Noise(40)];
                break;
            case 3:
                data = Noise(Chance(4) ? 100_000 : 2000);
                break;
            case 4 when Chance(3):
                return (option, data, (uint)(data.Length + (Chance(2) ? 1 + _random.Next(500) : _random.NextInt64(1, int.MaxValue))));
        }
        return (option, data, (uint)data.Length);
    }

    private void Transmit()
    {
        var reader = new StrictReader(_client.Socket, _structured, _extended);
        var sent = new Dictionary<ulong, SentRequest>();
        bool readsNothing = Chance(15);
        for (int i = _random.Next(1, 60); i > 0; i--)
        {
            ulong cookie = (ulong)_random.Next(20);
            // A cookie that is in use again stands for the same request: else nobody could tell the replies apart.
            if (!sent.TryGetValue(cookie, out SentRequest request) || reader.OutstandingCount == 0)
                request = sent[cookie] = NextRequest();
            if (!SendRequest(cookie, request, reader))
                return;
            if (!readsNothing && Chance(4))
            {
                reader.ReadReplies();
                Assert.False(reader.HasEnded, "the server closed on a request that it must answer");
                sent.Clear();
            }
        }
        EndTransmission(reader, readsNothing);
    }

    private SentRequest NextRequest()
    {
        var command = (NbdCommand)(Chance(15) ? _random.Next(65536) : _random.Next(8));
        if (command == NbdCommand.Disconnect)
            command = NbdCommand.Read;
        ulong length = NextLength();
        // The last page is the bystander's.
        ulong own = _exportBytes - 4096;
        ulong offset = _random.Next(6) switch
        {
            0 => (ulong)_random.NextInt64(),
            1 => ulong.MaxValue - (ulong)_random.Next(5000),
            2 => _exportBytes + (ulong)_random.Next(5000),
            _ => (ulong)_random.NextInt64((long)own),
        };
        var flags = (NbdCommandFlags)(Chance(4) ? 1 << _random.Next(16) : 0);
        bool changes = command is NbdCommand.Write or NbdCommand.WriteZeroes or NbdCommand.Trim;
        if (changes && offset < _exportBytes && offset + length > own && offset + length <= _exportBytes)
            length = own - Math.Min(own, offset);
        if (_extended && (command == NbdCommand.Write ? !Chance(10) : Chance(10)))
            flags |= NbdCommandFlags.PayloadLength;
        if (HasPayload(command, flags) && length > 300_000)
            length = 2 * MaxRequestBytes + 1 + (uint)_random.Next(1000); // too long to skip: the end of the connection
        if (command == NbdCommand.Flush && Chance(2))
            (offset, length) = (0, 0);
        return new SentRequest(command, offset, length, flags, IsValid(command, offset, length, flags));
    }

    private ulong NextLength() => _random.Next(8) switch
    {
        0 => 0,
        1 => (uint)_random.Next(1, 100_000),
        2 => MaxRequestBytes + (uint)_random.Next(1, 1000),
        3 => _extended && Chance(2) ? (ulong)_random.NextInt64() : (uint)_random.NextInt64(uint.MaxValue),
        _ => (uint)_random.Next(1, 5000),
    };

    /// <summary>Whether its length is that of a payload.</summary>
    private bool HasPayload(NbdCommand command, NbdCommandFlags flags) =>
        _extended ? (flags & NbdCommandFlags.PayloadLength) != 0 : command == NbdCommand.Write;

    /// <summary>What the protocol says ("Request types", "Command flags"), for an export that offers everything.</summary>
    private bool IsValid(NbdCommand command, ulong offset, ulong length, NbdCommandFlags flags)
    {
        if (_extended && HasPayload(command, flags) != (command == NbdCommand.Write))
            return false; // and a payload of zeros names no context that a block status could be asked for
        if (_extended)
            flags &= ~NbdCommandFlags.PayloadLength;
        if (AllowedFlags(command) is not { } allowed || (flags & ~(allowed | NbdCommandFlags.Fua)) != 0)
            return false;
        if (command == NbdCommand.Flush)
            return offset == 0 && length == 0;
        if (_isReadOnly && command is NbdCommand.Write or NbdCommand.WriteZeroes or NbdCommand.Trim)
            return false;
        bool isTooLong = command is NbdCommand.Read or NbdCommand.Write && length > MaxRequestBytes;
        return length > 0 && !isTooLong && offset <= _exportBytes && length <= _exportBytes - offset;
    }

    /// <summary>Null for a command that is not offered.</summary>
    private NbdCommandFlags? AllowedFlags(NbdCommand command) => command switch
    {
        NbdCommand.Read => _structured ? NbdCommandFlags.DontFragment : 0,
        NbdCommand.WriteZeroes => NbdCommandFlags.NoHole | NbdCommandFlags.FastZero,
        NbdCommand.BlockStatus => _hasContext ? NbdCommandFlags.RequestOne : null,
        NbdCommand.Write or NbdCommand.Flush or NbdCommand.Trim or NbdCommand.Cache => 0,
        _ => null,
    };

    /// <summary>False when the connection ended with it.</summary>
    private bool SendRequest(ulong cookie, SentRequest request, StrictReader reader)
    {
        bool hasPayload = HasPayload(request.Command, request.Flags);
        byte[] message = new byte[HeaderBytes + (hasPayload ? (int)Math.Min(request.Length, 300_000) : 0)];
        bool hasWrongMagic = Chance(60);
        WriteHeader(message, new RequestHeader(hasWrongMagic ? (uint)_random.Next() : Magic, request.Flags, request.Command, cookie,
            request.Offset, request.Length));
        bool isCut = Chance(60);
        bool closes = hasWrongMagic || isCut || (hasPayload && request.Length > 2 * MaxRequestBytes);
        _mayClose |= closes;
        if (!closes)
            reader.Expect(cookie, request);
        else if (isCut && !hasWrongMagic)
            reader.ExpectNothingOrError(cookie, request);
        Send($"{request} cookie {cookie}{(hasWrongMagic ? ", wrong magic" : "")}{(isCut ? ", cut" : "")}",
            isCut ? message.AsSpan(0, _random.Next(message.Length)) : message);
        if (!closes)
            return true;
        if (Chance(2))
            _client.Socket.Shutdown(SocketShutdown.Send);
        else if (isCut)
            return false; // and gone, with the request unfinished
        reader.ReadToEnd();
        return false;
    }

    private void EndTransmission(StrictReader reader, bool readsNothing)
    {
        if (readsNothing)
        {
            _story.Add("gone without reading");
            return;
        }
        switch (_random.Next(4))
        {
            case 0:
                _story.Add("half closed");
                _client.Socket.Shutdown(SocketShutdown.Send);
                reader.ReadToEnd();
                break;
            case 1:
                byte[] message = new byte[HeaderBytes];
                WriteHeader(message, new RequestHeader(Magic, 0, NbdCommand.Disconnect, 0, 0, 0));
                _mayClose = true;
                Send("disconnect, twice", [.. message, .. message]);
                reader.ReadToEnd();
                break;
            case 2:
                _mayClose = true;
                Send("noise", [0, .. Noise(500)]);
                _client.Socket.Shutdown(SocketShutdown.Send);
                reader.ReadToEnd();
                break;
            default:
                reader.ReadReplies();
                break;
        }
        Assert.Equal(0, reader.OutstandingCount);
    }

    private int HeaderBytes => _extended ? RequestHeader.ExtendedHeaderBytes : RequestHeader.HeaderBytes;

    private uint Magic => _extended ? NbdMagic.ExtendedRequest : NbdMagic.Request;

    private void WriteHeader(byte[] message, RequestHeader header)
    {
        if (_extended)
            header.WriteExtendedTo(message);
        else
            header.WriteTo(message);
    }

    private bool EndEarly(string how)
    {
        _story.Add($"ends: {how}");
        if (Chance(2))
        {
            _client.Socket.Shutdown(SocketShutdown.Send);
            _client.IsClosed();
        }
        return false;
    }
}
