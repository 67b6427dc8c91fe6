using System.Buffers.Binary;

namespace OrleansDisk.Nbd.Protocol;

/// <summary>
/// The fixed part of a request, big-endian: 28 bytes (NBD protocol, "Compact request message"), or 32 bytes once extended headers
/// are agreed on (its extension, "Extended request message").
/// </summary>
internal readonly record struct RequestHeader(
    uint Magic, NbdCommandFlags Flags, NbdCommand Command, ulong Cookie, ulong Offset, ulong Length)
{
    public const int HeaderBytes = 28;
    public const int ExtendedHeaderBytes = 32;

    private const int LengthAt = 24;

    /// <summary>Bytes of payload that follow the header on the wire.</summary>
    public ulong PayloadBytes { get; init; } = Command == NbdCommand.Write ? Length : 0;

    public static RequestHeader Parse(ReadOnlySpan<byte> source) => new(
        BinaryPrimitives.ReadUInt32BigEndian(source),
        (NbdCommandFlags)BinaryPrimitives.ReadUInt16BigEndian(source[4..]),
        (NbdCommand)BinaryPrimitives.ReadUInt16BigEndian(source[6..]),
        BinaryPrimitives.ReadUInt64BigEndian(source[8..]),
        BinaryPrimitives.ReadUInt64BigEndian(source[16..]),
        BinaryPrimitives.ReadUInt32BigEndian(source[LengthAt..]));

    public static RequestHeader ParseExtended(ReadOnlySpan<byte> source)
    {
        RequestHeader header = Parse(source) with { Length = BinaryPrimitives.ReadUInt64BigEndian(source[LengthAt..]) };
        return header with { PayloadBytes = (header.Flags & NbdCommandFlags.PayloadLength) != 0 ? header.Length : 0 };
    }

    /// <summary>Writes the compact form.</summary>
    public void WriteTo(Span<byte> target)
    {
        BinaryPrimitives.WriteUInt32BigEndian(target, Magic);
        BinaryPrimitives.WriteUInt16BigEndian(target[4..], (ushort)Flags);
        BinaryPrimitives.WriteUInt16BigEndian(target[6..], (ushort)Command);
        BinaryPrimitives.WriteUInt64BigEndian(target[8..], Cookie);
        BinaryPrimitives.WriteUInt64BigEndian(target[16..], Offset);
        BinaryPrimitives.WriteUInt32BigEndian(target[LengthAt..], (uint)Length);
    }

    /// <summary>Writes the extended form.</summary>
    public void WriteExtendedTo(Span<byte> target)
    {
        WriteTo(target);
        BinaryPrimitives.WriteUInt64BigEndian(target[LengthAt..], Length);
    }
}
