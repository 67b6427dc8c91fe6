using System.Buffers.Binary;
using System.Text;
using OrleansDisk.Nbd.Protocol;

namespace OrleansDisk.Nbd.Client;

/// <summary>The client's part of the handshake, up to the transmission phase.</summary>
/// <param name="options">What is asked for.</param>
/// <param name="stream">Where options go.</param>
/// <param name="buffer">Where replies come from.</param>
internal sealed class ClientHandshake(NbdClientOptions options, Stream stream, ReceiveBuffer buffer)
{
    private const int GreetingBytes = 18;
    private const int OldstyleRestBytes = 8 + 4 + 124;
    private const int ExportNameReplyBytes = 10;
    private const int ExportNameZeroBytes = 124;

    private readonly OptionExchange _exchange = new(stream, buffer);

    /// <summary>Comes to terms with the server.</summary>
    /// <exception cref="IOException">That fails; the message says why.</exception>
    public async Task<NegotiatedExport> RunAsync(CancellationToken cancellation)
    {
        ReadOnlyMemory<byte> greeting = await buffer.PeekAsync(GreetingBytes, cancellation);
        if (BinaryPrimitives.ReadUInt64BigEndian(greeting.Span) != NbdMagic.Greeting)
            throw new IOException("the server does not speak NBD");
        ulong style = BinaryPrimitives.ReadUInt64BigEndian(greeting.Span[8..]);
        if (style == NbdMagic.Oldstyle)
            return await TakeOldstyleAsync(cancellation);
        if (style != NbdMagic.Option)
            throw new IOException("the server does not speak NBD, oldstyle or newstyle");
        var offered = (NbdHandshakeFlags)BinaryPrimitives.ReadUInt16BigEndian(greeting.Span[16..]);
        buffer.Skip(GreetingBytes);
        bool isFixed = offered.HasFlag(NbdHandshakeFlags.FixedNewstyle);
        bool noZeroes = offered.HasFlag(NbdHandshakeFlags.NoZeroes);
        byte[] flags = new byte[sizeof(uint)];
        BinaryPrimitives.WriteUInt32BigEndian(flags, (uint)((isFixed ? NbdClientFlags.FixedNewstyle : NbdClientFlags.None)
            | (noZeroes ? NbdClientFlags.NoZeroes : NbdClientFlags.None)));
        await stream.WriteAsync(flags, cancellation);
        return (isFixed ? await GoAsync(cancellation) : null) ?? await NameAsync(noZeroes, cancellation);
    }

    /// <summary>Enters the transmission phase with GO; null when the server does not know it.</summary>
    private async Task<NegotiatedExport?> GoAsync(CancellationToken cancellation)
    {
        bool isStructured = await AskAsync(NbdOption.StructuredReply, [], cancellation);
        uint? context = isStructured && options.MetaContext is not null ? await SetContextAsync(options.MetaContext, cancellation) : null;
        var export = new NegotiatedExport { HasStructuredReplies = isStructured, ContextId = context };
        byte[] name = Encoding.UTF8.GetBytes(options.Export);
        byte[] data = new byte[sizeof(uint) + name.Length + (2 * sizeof(ushort))];
        BinaryPrimitives.WriteUInt32BigEndian(data, (uint)name.Length);
        name.CopyTo(data, sizeof(uint));
        BinaryPrimitives.WriteUInt16BigEndian(data.AsSpan(sizeof(uint) + name.Length), 1);
        BinaryPrimitives.WriteUInt16BigEndian(data.AsSpan(data.Length - sizeof(ushort)), (ushort)NbdInfoType.BlockSize);
        (NbdOptionReply reply, string text) = await _exchange.RunAsync(NbdOption.Go, data, (type, info) =>
        {
            if (type == NbdOptionReply.Info)
                export = export.With(info);
        }, cancellation);
        if (reply == NbdOptionReply.ErrorUnsupported)
            return null;
        Require(reply, text, NbdOption.Go);
        return export.Flags.HasFlag(NbdTransmissionFlags.HasFlags) ? export
            : throw new IOException("the server broke the protocol: an export without flags");
    }

    /// <summary>Enters the transmission phase as the first servers of the newstyle know it.</summary>
    private async Task<NegotiatedExport> NameAsync(bool noZeroes, CancellationToken cancellation)
    {
        await _exchange.SendAsync(NbdOption.ExportName, Encoding.UTF8.GetBytes(options.Export), cancellation);
        byte[] reply = new byte[ExportNameReplyBytes + (noZeroes ? 0 : ExportNameZeroBytes)];
        try
        {
            await buffer.TakeAsync(reply, cancellation);
        }
        catch (EndOfStreamException e)
        {
            throw new IOException("Requested export not available", e);
        }
        return new NegotiatedExport
        {
            Bytes = Size(reply),
            Flags = (NbdTransmissionFlags)BinaryPrimitives.ReadUInt16BigEndian(reply.AsSpan(8)),
        };
    }

    private async Task<NegotiatedExport> TakeOldstyleAsync(CancellationToken cancellation)
    {
        if (options.Export.Length > 0)
            throw new IOException("Server does not support non-empty export names");
        buffer.Skip(2 * sizeof(ulong));
        byte[] rest = new byte[OldstyleRestBytes];
        await buffer.TakeAsync(rest, cancellation);
        return new NegotiatedExport
        {
            Bytes = Size(rest),
            Flags = (NbdTransmissionFlags)BinaryPrimitives.ReadUInt16BigEndian(rest.AsSpan(10)),
        };
    }

    private async Task<bool> AskAsync(NbdOption option, byte[] data, CancellationToken cancellation)
    {
        (NbdOptionReply reply, string text) = await _exchange.RunAsync(option, data, (_, _) => { }, cancellation);
        if (reply is NbdOptionReply.ErrorTlsRequired)
            Require(reply, text, option);
        return reply == NbdOptionReply.Acknowledge;
    }

    private async Task<uint?> SetContextAsync(string context, CancellationToken cancellation)
    {
        uint? id = null;
        (NbdOptionReply reply, string _) = await _exchange.RunAsync(
            NbdOption.SetMetaContext, MetaContextQuery(options.Export, context), (type, data) =>
            {
                if (type == NbdOptionReply.MetaContext && data.Length > sizeof(uint)
                    && Encoding.UTF8.GetString(data.AsSpan(sizeof(uint))) == context)
                {
                    id = BinaryPrimitives.ReadUInt32BigEndian(data);
                }
            }, cancellation);
        return reply == NbdOptionReply.Acknowledge ? id : null;
    }

    /// <summary>The data of an option that asks an export for metadata contexts.</summary>
    private static byte[] MetaContextQuery(string export, params ReadOnlySpan<string> queries)
    {
        using var data = new MemoryStream();
        Span<byte> number = stackalloc byte[sizeof(uint)];
        byte[] name = Encoding.UTF8.GetBytes(export);
        BinaryPrimitives.WriteUInt32BigEndian(number, (uint)name.Length);
        data.Write(number);
        data.Write(name);
        BinaryPrimitives.WriteUInt32BigEndian(number, (uint)queries.Length);
        data.Write(number);
        foreach (string query in queries)
        {
            byte[] text = Encoding.UTF8.GetBytes(query);
            BinaryPrimitives.WriteUInt32BigEndian(number, (uint)text.Length);
            data.Write(number);
            data.Write(text);
        }
        return data.ToArray();
    }

    private static long Size(ReadOnlySpan<byte> data) => BinaryPrimitives.ReadInt64BigEndian(data) is >= 0 and long bytes ? bytes
        : throw new IOException("the server broke the protocol: an export without a size");

    /// <summary>Makes an exception of an error reply, in QEMU's words.</summary>
    private static void Require(NbdOptionReply reply, string text, NbdOption option)
    {
        string? message = reply switch
        {
            NbdOptionReply.Acknowledge => null,
            NbdOptionReply.ErrorUnknown => "Requested export not available",
            NbdOptionReply.ErrorPolicy => $"Denied by server for option {(uint)option} ({option})",
            NbdOptionReply.ErrorTlsRequired => $"Server requires TLS to be enabled for option {(uint)option} ({option})",
            NbdOptionReply.ErrorShutdown => "Server shutting down before option " + (uint)option,
            NbdOptionReply.ErrorBlockSizeRequired => "Server requires INFO_BLOCK_SIZE for option " + (uint)option,
            _ => $"Server refuses option {(uint)option} ({option}): {reply}",
        };
        if (message is not null)
            throw new IOException(text.Length > 0 ? $"{message}\nserver reported: {text}" : message);
    }
}
