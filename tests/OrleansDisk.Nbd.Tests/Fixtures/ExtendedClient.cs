using System.Buffers.Binary;
using OrleansDisk.Nbd.Protocol;

namespace OrleansDisk.Nbd.Tests.Fixtures;

/// <summary>A chunk of a reply with an extended header.</summary>
internal readonly record struct ExtendedChunk(ushort Flags, int Type, ulong Cookie, ulong Offset, byte[] Data)
{
    public bool IsLast => (Flags & 1) != 0;

    /// <summary>The error of an error chunk.</summary>
    public NbdError Error => Type == 0x8001 ? (NbdError)BinaryPrimitives.ReadUInt32BigEndian(Data) : NbdError.None;

    /// <summary>Context, and pairs of length and flags, of a block status.</summary>
    public (uint Context, (ulong Bytes, ulong Flags)[] Extents) Status
    {
        get
        {
            byte[] data = Data;
            Assert.Equal(6, Type);
            int count = (int)BinaryPrimitives.ReadUInt32BigEndian(data.AsSpan(4));
            Assert.Equal(8 + count * 16, data.Length);
            return (BinaryPrimitives.ReadUInt32BigEndian(data), [.. Enumerable.Range(0, count).Select(i => (
                BinaryPrimitives.ReadUInt64BigEndian(data.AsSpan(8 + i * 16)), BinaryPrimitives.ReadUInt64BigEndian(data.AsSpan(16 + i * 16))))]);
        }
    }
}

/// <summary>
/// A client with extended headers, byte for byte as the protocol's extension writes them down: nothing of it comes from the code
/// that it tests.
/// </summary>
internal sealed class ExtendedClient : IDisposable
{
    public const int PayloadFlag = 1 << 5;

    private readonly RawClient _raw;
    private ulong _cookie = 0xabcdef0000000000;

    public ExtendedClient(TestServer server, params string[] contexts)
    {
        _raw = server.Connect();
        _raw.Greet();
        _raw.Acknowledged((NbdOption)11, []);
        if (contexts.Length > 0)
            Contexts = [.. _raw.Option(NbdOption.SetMetaContext, Wire.MetaContext("", contexts)).SkipLast(1).Select(reply => BinaryPrimitives.ReadUInt32BigEndian(reply.Data))];
        _raw.Go("");
    }

    public RawClient Raw => _raw;

    /// <summary>The ids of the contexts, in the order of the server.</summary>
    public uint[] Contexts { get; } = [];

    public ulong Send(int command, ulong offset, ulong length, int flags = 0, byte[]? payload = null)
    {
        _raw.Send([0x21, 0xe4, 0x1c, 0x71, .. Wire.U16(flags), .. Wire.U16(command), .. Wire.U64(++_cookie), .. Wire.U64(offset), .. Wire.U64(length),
            .. payload ?? []]);
        return _cookie;
    }

    /// <summary>Sends a request and takes its whole reply, whose headers repeat the request's cookie and offset.</summary>
    public List<ExtendedChunk> Request(int command, ulong offset, ulong length, int flags = 0, byte[]? payload = null)
    {
        ulong cookie = Send(command, offset, length, flags, payload);
        var chunks = new List<ExtendedChunk>();
        do
            chunks.Add(Receive());
        while (!chunks[^1].IsLast);
        Assert.All(chunks, chunk => Assert.Equal((cookie, offset), (chunk.Cookie, chunk.Offset)));
        return chunks;
    }

    public NbdError ErrorOf(int command, ulong offset, ulong length, int flags = 0, byte[]? payload = null) =>
        Assert.Single(Request(command, offset, length, flags, payload)).Error;

    public ExtendedChunk Receive()
    {
        byte[] header = _raw.Receive(32);
        Assert.Equal(0x6e8a278cu, BinaryPrimitives.ReadUInt32BigEndian(header));
        return new ExtendedChunk(BinaryPrimitives.ReadUInt16BigEndian(header.AsSpan(4)), BinaryPrimitives.ReadUInt16BigEndian(header.AsSpan(6)),
            BinaryPrimitives.ReadUInt64BigEndian(header.AsSpan(8)), BinaryPrimitives.ReadUInt64BigEndian(header.AsSpan(16)),
            _raw.Receive((int)BinaryPrimitives.ReadUInt64BigEndian(header.AsSpan(24))));
    }

    public void Dispose() => _raw.Dispose();
}
