using System.Buffers;
using System.Buffers.Binary;
using System.Text;
using OrleansDisk.Nbd.Protocol;

namespace OrleansDisk.Nbd.Server;

/// <summary>Collects the replies to one option and sends them (NBD protocol, "Fixed newstyle negotiation").</summary>
internal sealed class OptionReplies(StreamSocket socket)
{
    private const int SendAtBytes = 64 << 10;

    private readonly ArrayBufferWriter<byte> _pending = new();
    private uint _option;

    public void Start(uint option) => _option = option;

    public void Acknowledge() => Add(NbdOptionReply.Acknowledge, []);

    public void Fail(NbdOptionReply error, string message) => Add(error, Encoding.UTF8.GetBytes(message));

    /// <summary>NBD_REP_SERVER.</summary>
    public void AddServer(string name, string description)
    {
        byte[] nameBytes = Encoding.UTF8.GetBytes(name);
        byte[] data = [.. UInt32((uint)nameBytes.Length), .. nameBytes, .. Encoding.UTF8.GetBytes(description)];
        Add(NbdOptionReply.Server, data);
    }

    /// <summary>NBD_REP_META_CONTEXT.</summary>
    public void AddMetaContext(uint id, string name) =>
        Add(NbdOptionReply.MetaContext, [.. UInt32(id), .. Encoding.UTF8.GetBytes(name)]);

    /// <summary>NBD_INFO_EXPORT.</summary>
    public void AddExportInfo(long bytes, NbdTransmissionFlags flags)
    {
        byte[] data = new byte[12];
        BinaryPrimitives.WriteUInt16BigEndian(data, (ushort)NbdInfoType.Export);
        BinaryPrimitives.WriteInt64BigEndian(data.AsSpan(2), bytes);
        BinaryPrimitives.WriteUInt16BigEndian(data.AsSpan(10), (ushort)flags);
        Add(NbdOptionReply.Info, data);
    }

    /// <summary>NBD_INFO_BLOCK_SIZE; all in bytes.</summary>
    public void AddBlockSizeInfo(uint minimum, uint preferred, uint maximum) =>
        Add(NbdOptionReply.Info, [0, (byte)NbdInfoType.BlockSize, .. UInt32(minimum), .. UInt32(preferred), .. UInt32(maximum)]);

    /// <summary>NBD_INFO_NAME or NBD_INFO_DESCRIPTION.</summary>
    public void AddTextInfo(NbdInfoType type, string text) =>
        Add(NbdOptionReply.Info, [0, (byte)type, .. Encoding.UTF8.GetBytes(text)]);

    /// <summary>What EXPORT_NAME is answered with; it has no header.</summary>
    public void AddExportNameReply(long bytes, NbdTransmissionFlags flags, int zeroBytes)
    {
        Span<byte> reply = _pending.GetSpan(10 + zeroBytes)[..(10 + zeroBytes)];
        reply.Clear();
        BinaryPrimitives.WriteInt64BigEndian(reply, bytes);
        BinaryPrimitives.WriteUInt16BigEndian(reply[8..], (ushort)flags);
        _pending.Advance(reply.Length);
    }

    public void Send()
    {
        socket.Send(_pending.WrittenSpan);
        _pending.ResetWrittenCount();
    }

    private void Add(NbdOptionReply type, ReadOnlySpan<byte> data)
    {
        const int HeaderBytes = 20;
        Span<byte> header = _pending.GetSpan(HeaderBytes);
        BinaryPrimitives.WriteUInt64BigEndian(header, NbdMagic.OptionReply);
        BinaryPrimitives.WriteUInt32BigEndian(header[8..], _option);
        BinaryPrimitives.WriteUInt32BigEndian(header[12..], (uint)type);
        BinaryPrimitives.WriteUInt32BigEndian(header[16..], (uint)data.Length);
        _pending.Advance(HeaderBytes);
        _pending.Write(data);
        if (_pending.WrittenCount >= SendAtBytes)
            Send();
    }

    private static byte[] UInt32(uint value)
    {
        byte[] bytes = new byte[4];
        BinaryPrimitives.WriteUInt32BigEndian(bytes, value);
        return bytes;
    }
}
