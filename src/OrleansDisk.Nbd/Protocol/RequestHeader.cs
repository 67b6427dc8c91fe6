using System.Buffers.Binary;

namespace OrleansDisk.Nbd.Protocol;

/// <summary>The fixed part of a request (NBD protocol, "Request message"): 28 bytes, big-endian.</summary>
internal readonly record struct RequestHeader(
    uint Magic, NbdCommandFlags Flags, NbdCommand Command, ulong Cookie, ulong Offset, uint Length)
{
    public const int HeaderBytes = 28;

    /// <summary>Bytes of payload that follow the header on the wire.</summary>
    public uint PayloadBytes => Command == NbdCommand.Write ? Length : 0;

    public static RequestHeader Parse(ReadOnlySpan<byte> source) => new(
        BinaryPrimitives.ReadUInt32BigEndian(source),
        (NbdCommandFlags)BinaryPrimitives.ReadUInt16BigEndian(source[4..]),
        (NbdCommand)BinaryPrimitives.ReadUInt16BigEndian(source[6..]),
        BinaryPrimitives.ReadUInt64BigEndian(source[8..]),
        BinaryPrimitives.ReadUInt64BigEndian(source[16..]),
        BinaryPrimitives.ReadUInt32BigEndian(source[24..]));

    public void WriteTo(Span<byte> target)
    {
        BinaryPrimitives.WriteUInt32BigEndian(target, Magic);
        BinaryPrimitives.WriteUInt16BigEndian(target[4..], (ushort)Flags);
        BinaryPrimitives.WriteUInt16BigEndian(target[6..], (ushort)Command);
        BinaryPrimitives.WriteUInt64BigEndian(target[8..], Cookie);
        BinaryPrimitives.WriteUInt64BigEndian(target[16..], Offset);
        BinaryPrimitives.WriteUInt32BigEndian(target[24..], Length);
    }
}
