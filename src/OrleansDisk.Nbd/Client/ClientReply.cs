using System.Buffers.Binary;
using OrleansDisk.Nbd.Protocol;

namespace OrleansDisk.Nbd.Client;

/// <summary>A range of an export that a metadata context says the same of.</summary>
/// <param name="Bytes">Length, at least 1.</param>
/// <param name="Flags">What it says; for base:allocation 1 is a hole and 2 zeros, for qemu:dirty-bitmap: 1 is dirty.</param>
public readonly record struct NbdExtent(uint Bytes, uint Flags);

/// <summary>The reply to one request, simple or in chunks (NBD protocol, "Reply message"). Nothing else is under way.</summary>
/// <param name="stream">The connection.</param>
/// <param name="session">What was agreed on.</param>
/// <param name="cookie">The request's.</param>
internal sealed class ClientReply(Stream stream, ClientSession session, ulong cookie)
{
    private const int SimpleHeaderBytes = 16;
    private const int StructuredHeaderBytes = 20;
    private const int DoneFlag = 1;

    /// <summary>What is neither data nor a list of extents is short.</summary>
    private const int MaxChunkBytes = 1 << 20;

    /// <summary>The first error that it told of.</summary>
    public NbdError Error { get; private set; }

    /// <summary>The first extent of a block status, or null.</summary>
    public NbdExtent? Extent { get; private set; }

    /// <summary>Receives it.</summary>
    /// <param name="offset">Where the request began.</param>
    /// <param name="target">Gets what is read.</param>
    /// <param name="cancellation">Ends the waiting; the connection is of no use afterwards.</param>
    /// <exception cref="IOException">The server broke the protocol, or has gone.</exception>
    public async Task ReceiveAsync(long offset, Memory<byte> target, CancellationToken cancellation)
    {
        byte[] header = new byte[StructuredHeaderBytes];
        while (true)
        {
            await stream.ReadExactlyAsync(header.AsMemory(0, SimpleHeaderBytes), cancellation);
            uint magic = BinaryPrimitives.ReadUInt32BigEndian(header);
            if (BinaryPrimitives.ReadUInt64BigEndian(header.AsSpan(8)) != cookie)
                throw Broken("no reply to the request");
            if (magic == NbdMagic.SimpleReply)
            {
                Error = (NbdError)BinaryPrimitives.ReadUInt32BigEndian(header.AsSpan(4));
                if (Error == NbdError.None)
                    await stream.ReadExactlyAsync(target, cancellation);
                return;
            }
            if (magic != NbdMagic.StructuredReply || !session.IsStructured)
                throw Broken("no reply to the request");
            await stream.ReadExactlyAsync(header.AsMemory(SimpleHeaderBytes), cancellation);
            var type = (NbdChunkType)BinaryPrimitives.ReadUInt16BigEndian(header.AsSpan(6));
            await TakeChunkAsync(type, BinaryPrimitives.ReadUInt32BigEndian(header.AsSpan(SimpleHeaderBytes)), offset, target, cancellation);
            if ((BinaryPrimitives.ReadUInt16BigEndian(header.AsSpan(4)) & DoneFlag) != 0)
                return;
        }
    }

    private async Task TakeChunkAsync(NbdChunkType type, uint length, long offset, Memory<byte> target, CancellationToken cancellation)
    {
        bool isData = type == NbdChunkType.OffsetData;
        byte[] content = await ReceiveAsync(isData ? sizeof(ulong) : length, cancellation);
        switch (type)
        {
            case NbdChunkType.None:
                break;
            case NbdChunkType.OffsetData when length >= sizeof(ulong):
                await stream.ReadExactlyAsync(PartOf(target, offset, content, length - sizeof(ulong)), cancellation);
                break;
            case NbdChunkType.OffsetHole when length == sizeof(ulong) + sizeof(uint):
                PartOf(target, offset, content, BinaryPrimitives.ReadUInt32BigEndian(content.AsSpan(sizeof(ulong)))).Span.Clear();
                break;
            case NbdChunkType.BlockStatus when length >= 12:
                if (BinaryPrimitives.ReadUInt32BigEndian(content) == session.ContextId)
                    Extent = ExtentOf(content.AsSpan(4));
                break;
            case >= NbdChunkType.Error when length >= sizeof(uint):
                Error = Error == NbdError.None ? (NbdError)BinaryPrimitives.ReadUInt32BigEndian(content) : Error;
                break;
            default:
                throw Broken($"a chunk of type {type} with {length} bytes");
        }
    }

    private static NbdExtent ExtentOf(ReadOnlySpan<byte> descriptor)
    {
        var extent = new NbdExtent(BinaryPrimitives.ReadUInt32BigEndian(descriptor), BinaryPrimitives.ReadUInt32BigEndian(descriptor[4..]));
        return extent.Bytes > 0 ? extent : throw Broken("an extent without a byte");
    }

    private static Memory<byte> PartOf(Memory<byte> target, long offset, byte[] content, uint bytes)
    {
        ulong start = BinaryPrimitives.ReadUInt64BigEndian(content) - (ulong)offset;
        return start <= (ulong)target.Length && bytes <= (ulong)target.Length - start ? target.Slice((int)start, (int)bytes)
            : throw Broken("a chunk that lies outside of what was asked for");
    }

    private async Task<byte[]> ReceiveAsync(uint bytes, CancellationToken cancellation)
    {
        if (bytes > MaxChunkBytes)
            throw Broken($"a chunk of {bytes} bytes");
        byte[] received = new byte[bytes];
        await stream.ReadExactlyAsync(received, cancellation);
        return received;
    }

    private static IOException Broken(string how) => new($"the server broke the protocol: {how}");
}
