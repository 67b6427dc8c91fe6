using System.Buffers.Binary;
using OrleansDisk.Nbd.Protocol;

namespace OrleansDisk.Nbd.Server;

/// <summary>What the handshake agreed on.</summary>
internal readonly record struct NegotiatedExport(INbdExportSession Session, string Name, NbdExportInfo Info)
{
    /// <summary>Whether replies come in chunks, structured or extended.</summary>
    public bool StructuredReplies { get; init; }

    /// <summary>Whether requests and replies have extended headers, with lengths of 64 bits.</summary>
    public bool ExtendedHeaders { get; init; }

    /// <summary>Whether base:allocation was selected for this export.</summary>
    public bool WantsAllocation { get; init; }

    /// <summary>The other contexts that were selected: places in <see cref="INbdExport.MetaContexts"/>.</summary>
    public IReadOnlyList<int> Contexts { get; init; } = [];

    /// <summary>Whether there is anything that a block-status request could be told.</summary>
    public bool HasContexts => WantsAllocation || Contexts.Count > 0;

    /// <summary>NBD protocol, "Transmission flags".</summary>
    public NbdTransmissionFlags TransmissionFlags
    {
        get
        {
            NbdTransmissionFlags flags =
                NbdTransmissionFlags.HasFlags | NbdTransmissionFlags.SendFlush | NbdTransmissionFlags.SendFua;
            if (Info.IsReadOnly)
                flags |= NbdTransmissionFlags.ReadOnly;
            else
                flags |= WriteFlags;
            if (StructuredReplies)
                flags |= NbdTransmissionFlags.SendDontFragment;
            if (ExtendedHeaders && HasContexts)
                flags |= NbdTransmissionFlags.BlockStatusPayload;
            if (Info.CanMultiConnect)
                flags |= NbdTransmissionFlags.CanMultiConnect;
            if (Info.CanCache)
                flags |= NbdTransmissionFlags.SendCache;
            return flags;
        }
    }

    private NbdTransmissionFlags WriteFlags
    {
        get
        {
            NbdTransmissionFlags flags = NbdTransmissionFlags.None;
            if (Info.CanTrim)
                flags |= NbdTransmissionFlags.SendTrim;
            if (Info.CanWriteZeroes)
                flags |= NbdTransmissionFlags.SendWriteZeroes;
            if (Info.CanWriteZeroes && Info.CanFastZero)
                flags |= NbdTransmissionFlags.SendFastZero;
            return flags;
        }
    }
}

/// <summary>Why a request is not given to the export: the error for the client and the reason in words.</summary>
internal readonly record struct Refusal(NbdError Error, string Reason);

/// <summary>Checks requests against the protocol and what was negotiated ("Request types", "Command flags").</summary>
internal sealed class RequestRules(NegotiatedExport export, uint maxRequestBytes)
{
    private readonly NbdExportInfo _info = export.Info;

    /// <summary>Null when the request is in order.</summary>
    public Refusal? Check(in RequestHeader header)
    {
        NbdCommandFlags? allowed = AllowedFlags(header.Command);
        if (allowed is null)
            return Invalid($"command {(ushort)header.Command} is not supported here");
        bool hasPayload = (header.Flags & NbdCommandFlags.PayloadLength) != 0;
        if (export.ExtendedHeaders && hasPayload != (header.Command == NbdCommand.Write))
            return Invalid(hasPayload ? $"{header.Command} with a payload" : "a write without a payload");
        NbdCommandFlags known = allowed.Value | NbdCommandFlags.Fua
            | (export.ExtendedHeaders ? NbdCommandFlags.PayloadLength : NbdCommandFlags.None);
        if ((header.Flags & ~known) != 0)
            return Invalid($"{header.Command} with flags 0x{(ushort)header.Flags:x} that it does not have here");
        if (header.Command == NbdCommand.Flush)
            return (header.Offset | header.Length) == 0 ? null : Invalid("Flush with an offset or a length");
        return CheckCommand(header) ?? CheckRange(header);
    }

    /// <summary>The flags of a command beside FUA, which all have; null for a command that is not offered.</summary>
    private NbdCommandFlags? AllowedFlags(NbdCommand command) => command switch
    {
        NbdCommand.Read => export.StructuredReplies ? NbdCommandFlags.DontFragment : NbdCommandFlags.None,
        NbdCommand.Write or NbdCommand.Flush => NbdCommandFlags.None,
        NbdCommand.Trim when _info.CanTrim || _info.IsReadOnly => NbdCommandFlags.None,
        NbdCommand.Cache when _info.CanCache => NbdCommandFlags.None,
        NbdCommand.WriteZeroes when _info.CanWriteZeroes || _info.IsReadOnly =>
            NbdCommandFlags.NoHole | (_info.CanFastZero ? NbdCommandFlags.FastZero : NbdCommandFlags.None),
        NbdCommand.BlockStatus when export.HasContexts => NbdCommandFlags.RequestOne,
        _ => null,
    };

    private Refusal? CheckCommand(in RequestHeader header)
    {
        bool writes = header.Command is NbdCommand.Write or NbdCommand.WriteZeroes or NbdCommand.Trim;
        if (writes && _info.IsReadOnly)
            return new Refusal(NbdError.NotPermitted, $"{header.Command}: the export is read-only");
        if (header.Length == 0)
            return Invalid($"{header.Command} of no bytes");
        if (header.Length <= maxRequestBytes)
            return null;
        return header.Command switch
        {
            NbdCommand.Read => new Refusal(NbdError.Overflow, TooLong(header)),
            NbdCommand.Write => Invalid(TooLong(header)),
            _ => null,
        };
    }

    private Refusal? CheckRange(in RequestHeader header)
    {
        ulong size = (ulong)_info.Bytes;
        if (header.Offset > size || header.Length > size - header.Offset)
        {
            bool needsSpace = header.Command is NbdCommand.Write or NbdCommand.WriteZeroes;
            string reason = $"{header.Command} of {header.Length} bytes at {header.Offset}, past the end at {size}";
            return new Refusal(needsSpace ? NbdError.NoSpace : NbdError.InvalidArgument, reason);
        }
        uint unaligned = ((uint)header.Offset | (uint)header.Length) & (_info.MinimumBlockBytes - 1);
        if (unaligned == 0)
            return null;
        return Invalid($"{header.Command} of {header.Length} bytes at {header.Offset}, "
            + $"not a multiple of the minimum block size {_info.MinimumBlockBytes}");
    }

    private string TooLong(in RequestHeader header) =>
        $"{header.Command} of {header.Length} bytes, more than the maximum payload of {maxRequestBytes}";

    private static Refusal Invalid(string reason) => new(NbdError.InvalidArgument, reason);

    /// <summary>
    /// The request that a block status with a payload means: the payload has its length, and the contexts that are wanted of those
    /// that were agreed on ("NBD_CMD_BLOCK_STATUS").
    /// </summary>
    /// <param name="header">The request.</param>
    /// <param name="payload">All of its payload.</param>
    /// <param name="wanted">The export with the contexts that are wanted.</param>
    public Refusal? ReadStatusPayload(ref RequestHeader header, ReadOnlySpan<byte> payload, out NegotiatedExport wanted)
    {
        wanted = export with { WantsAllocation = false, Contexts = [] };
        if (payload.Length < sizeof(ulong) + sizeof(uint) || payload.Length % sizeof(uint) != 0)
            return Invalid($"BlockStatus with a payload of {payload.Length} bytes");
        var contexts = new List<int>();
        for (ReadOnlySpan<byte> rest = payload[sizeof(ulong)..]; rest.Length > 0; rest = rest[sizeof(uint)..])
        {
            uint id = BinaryPrimitives.ReadUInt32BigEndian(rest);
            int context = export.Contexts.FirstOrDefault(context => ContextSelection.IdOf(context) == id, -1);
            bool isAllocation = id == ContextSelection.AllocationId && export.WantsAllocation;
            if (isAllocation ? wanted.WantsAllocation : context < 0 || contexts.Contains(context))
                return Invalid($"BlockStatus with the context {id} that was not agreed on, or twice");
            if (isAllocation)
                wanted = wanted with { WantsAllocation = true };
            else
                contexts.Add(context);
        }
        wanted = wanted with { Contexts = contexts };
        header = header with
        {
            Length = BinaryPrimitives.ReadUInt64BigEndian(payload),
            Flags = header.Flags & ~NbdCommandFlags.PayloadLength,
            PayloadBytes = 0,
        };
        return Check(header);
    }

    /// <summary>The longest payload that makes sense with a block status.</summary>
    public ulong MaxStatusPayloadBytes => sizeof(ulong) + ((ulong)(export.Contexts.Count + 1) * sizeof(uint));
}
