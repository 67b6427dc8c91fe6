using System.Buffers.Binary;
using System.Numerics;
using System.Text;
using OrleansDisk.Nbd.Protocol;

namespace OrleansDisk.Nbd.Client;

/// <summary>What a client and a server have agreed on.</summary>
internal sealed record NegotiatedExport
{
    /// <summary>What a server takes that says nothing of it, and what every server takes.</summary>
    public const uint DefaultMaxBlockBytes = 32 << 20;

    /// <summary>Size in bytes.</summary>
    public long Bytes { get; init; }

    public NbdTransmissionFlags Flags { get; init; }

    public bool HasStructuredReplies { get; init; }

    /// <summary>The number of the metadata context, or null when there is none.</summary>
    public uint? ContextId { get; init; }

    /// <summary>Whether the block sizes are the server's own words.</summary>
    public bool HasBlockSizes { get; init; }

    /// <summary>What offsets and lengths must be multiples of.</summary>
    public uint MinBlockBytes { get; init; } = 1;

    /// <summary>What the server likes best.</summary>
    public uint PreferredBlockBytes { get; init; } = 4096;

    /// <summary>The longest payload.</summary>
    public uint MaxBlockBytes { get; init; } = DefaultMaxBlockBytes;

    public string Description { get; init; } = "";

    /// <summary>Takes what an NBD_REP_INFO says.</summary>
    /// <exception cref="IOException">It says nonsense.</exception>
    public NegotiatedExport With(ReadOnlySpan<byte> info)
    {
        if (info.Length < sizeof(ushort))
            throw new IOException("the server broke the protocol: information without a type");
        ReadOnlySpan<byte> data = info[sizeof(ushort)..];
        switch ((NbdInfoType)BinaryPrimitives.ReadUInt16BigEndian(info))
        {
            case NbdInfoType.Export when data.Length == 10 && data[0] < 0x80:
                return this with
                {
                    Bytes = BinaryPrimitives.ReadInt64BigEndian(data),
                    Flags = (NbdTransmissionFlags)BinaryPrimitives.ReadUInt16BigEndian(data[8..]),
                };
            case NbdInfoType.Export:
                throw new IOException("the server broke the protocol: an export without a size");
            case NbdInfoType.Description:
                return this with { Description = Encoding.UTF8.GetString(data) };
            case NbdInfoType.BlockSize when data.Length == 12:
                return With(BinaryPrimitives.ReadUInt32BigEndian(data), BinaryPrimitives.ReadUInt32BigEndian(data[4..]),
                    BinaryPrimitives.ReadUInt32BigEndian(data[8..]));
            default:
                return this;
        }
    }

    private NegotiatedExport With(uint min, uint preferred, uint max)
    {
        if (!BitOperations.IsPow2(min) || min > 64 << 10 || preferred < min || max < min)
            throw new IOException($"the server broke the protocol: block sizes of {min}, {preferred} and {max} bytes");
        return this with { HasBlockSizes = true, MinBlockBytes = min, PreferredBlockBytes = preferred, MaxBlockBytes = max };
    }
}
