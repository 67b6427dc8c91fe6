using System.Buffers.Binary;
using System.Text;
using OrleansDisk.Nbd.Protocol;
using OrleansDisk.Nbd.Tls;

namespace OrleansDisk.Nbd.Client;

/// <summary>The client's part of the handshake, up to the transmission phase.</summary>
/// <param name="options">What is asked for.</param>
/// <param name="connection">The connection.</param>
internal sealed class ClientHandshake(NbdClientOptions options, Stream connection)
{
    private const int GreetingBytes = 18;
    private const int OldstyleRestBytes = 8 + 4 + 124;
    private const int ExportNameReplyBytes = 10;
    private const int ExportNameZeroBytes = 124;

    private OptionExchange _exchange = null!; // from the greeting on

    /// <summary>The connection, or what encrypts it.</summary>
    public Stream Stream { get; private set; } = connection;

    /// <summary>What was received and not taken.</summary>
    public ReceiveBuffer Buffer { get; private set; } = new(connection);

    /// <summary>Comes to terms with the server.</summary>
    /// <exception cref="IOException">That fails; the message says why.</exception>
    public async Task<NegotiatedExport> RunAsync(CancellationToken cancellation)
    {
        if (await GreetAsync(cancellation) is not { } style)
            return await TakeOldstyleAsync(cancellation);
        return (style.HasFlag(NbdHandshakeFlags.FixedNewstyle) ? await GoAsync(cancellation) : null)
            ?? await NameAsync(style.HasFlag(NbdHandshakeFlags.NoZeroes), cancellation);
    }

    /// <summary>Asks the server for all that it has, and says goodbye.</summary>
    /// <exception cref="IOException">That fails; the message says why.</exception>
    public async Task<IReadOnlyList<NbdListedExport>> ListAsync(CancellationToken cancellation)
    {
        if (await GreetAsync(cancellation) is not { } style)
            return [new NbdListedExport("", await TakeOldstyleAsync(cancellation), [])];
        if (!style.HasFlag(NbdHandshakeFlags.FixedNewstyle))
            throw new IOException("Server does not support export lists");
        bool isStructured = await AskAsync(NbdOption.StructuredReply, [], cancellation);
        var names = new List<(string Name, string Description)>();
        (NbdOptionReply reply, string text) = await _exchange.RunAsync(NbdOption.List, [], (type, data) =>
        {
            if (type == NbdOptionReply.Server)
                names.Add(ServerName(data));
        }, cancellation);
        Require(reply, text, NbdOption.List);
        var exports = new List<NbdListedExport>();
        foreach ((string name, string description) in names)
        {
            NegotiatedExport export = await InformAsync(new NegotiatedExport { Description = description }, name, cancellation);
            exports.Add(new NbdListedExport(name, export, isStructured ? await ListContextsAsync(name, cancellation) : []));
        }
        await _exchange.SendAsync(NbdOption.Abort, [], cancellation);
        return exports;
    }

    /// <summary>Takes the greeting and answers it; null when it is of the oldstyle, which says all in one piece.</summary>
    private async Task<NbdHandshakeFlags?> GreetAsync(CancellationToken cancellation)
    {
        ReadOnlyMemory<byte> greeting = await Buffer.PeekAsync(GreetingBytes, cancellation);
        if (BinaryPrimitives.ReadUInt64BigEndian(greeting.Span) != NbdMagic.Greeting)
            throw new IOException("the server does not speak NBD");
        ulong style = BinaryPrimitives.ReadUInt64BigEndian(greeting.Span[8..]);
        if (style == NbdMagic.Oldstyle)
            return options.Tls is null ? null : throw new IOException("Server does not support STARTTLS");
        if (style != NbdMagic.Option)
            throw new IOException("the server does not speak NBD, oldstyle or newstyle");
        NbdHandshakeFlags offered = (NbdHandshakeFlags)BinaryPrimitives.ReadUInt16BigEndian(greeting.Span[16..])
            & (NbdHandshakeFlags.FixedNewstyle | NbdHandshakeFlags.NoZeroes);
        Buffer.Skip(GreetingBytes);
        byte[] flags = new byte[sizeof(uint)];
        BinaryPrimitives.WriteUInt32BigEndian(flags, (uint)offered); // the client's flags are the server's
        await Stream.WriteAsync(flags, cancellation);
        _exchange = new OptionExchange(Stream, Buffer);
        if (options.Tls is { } credentials)
            await StartTlsAsync(credentials, offered, cancellation);
        return offered;
    }

    private async Task StartTlsAsync(NbdTlsCredentials credentials, NbdHandshakeFlags offered, CancellationToken cancellation)
    {
        if (!offered.HasFlag(NbdHandshakeFlags.FixedNewstyle))
            throw new IOException("Server does not support STARTTLS");
        (NbdOptionReply reply, string text) = await _exchange.RunAsync(NbdOption.StartTls, [], (_, _) => { }, cancellation);
        Require(reply, text, NbdOption.StartTls);
        // What was sent in the open would count as encrypted.
        if (!Buffer.IsEmpty)
            throw new IOException("the server broke the protocol: plain bytes after STARTTLS");
        Stream = await credentials.ConnectAsync(Stream, options.CertificateName, cancellation);
        Buffer = new ReceiveBuffer(Stream);
        _exchange = new OptionExchange(Stream, Buffer);
    }

    /// <summary>Enters the transmission phase with GO; null when the server does not know it.</summary>
    private async Task<NegotiatedExport?> GoAsync(CancellationToken cancellation)
    {
        bool isStructured = await AskAsync(NbdOption.StructuredReply, [], cancellation);
        uint? context = isStructured && options.MetaContext is not null ? await SetContextAsync(options.MetaContext, cancellation) : null;
        var export = new NegotiatedExport { HasStructuredReplies = isStructured, ContextId = context };
        (NbdOptionReply reply, string text) = await _exchange.RunAsync(NbdOption.Go, InfoRequest(options.Export), (type, info) =>
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
            await Buffer.TakeAsync(reply, cancellation);
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
        Buffer.Skip(2 * sizeof(ulong));
        byte[] rest = new byte[OldstyleRestBytes];
        await Buffer.TakeAsync(rest, cancellation);
        return new NegotiatedExport
        {
            Bytes = Size(rest),
            Flags = (NbdTransmissionFlags)BinaryPrimitives.ReadUInt16BigEndian(rest.AsSpan(10)),
        };
    }

    /// <summary>What the server says of an export; what it does not know to say is left as it is.</summary>
    private async Task<NegotiatedExport> InformAsync(NegotiatedExport export, string name, CancellationToken cancellation)
    {
        (NbdOptionReply reply, string text) = await _exchange.RunAsync(NbdOption.Info, InfoRequest(name, NbdInfoType.Description), (type, info) =>
        {
            if (type == NbdOptionReply.Info)
                export = export.With(info);
        }, cancellation);
        if (reply is not (NbdOptionReply.ErrorUnsupported or NbdOptionReply.ErrorUnknown))
            Require(reply, text, NbdOption.Info);
        return export;
    }

    private async Task<IReadOnlyList<string>> ListContextsAsync(string name, CancellationToken cancellation)
    {
        var contexts = new List<string>();
        await _exchange.RunAsync(NbdOption.ListMetaContext, MetaContextQuery(name), (type, data) =>
        {
            if (type == NbdOptionReply.MetaContext && data.Length > sizeof(uint))
                contexts.Add(Encoding.UTF8.GetString(data.AsSpan(sizeof(uint))));
        }, cancellation);
        return contexts;
    }

    private static (string Name, string Description) ServerName(ReadOnlySpan<byte> data)
    {
        if (data.Length < sizeof(uint) || BinaryPrimitives.ReadUInt32BigEndian(data) > data.Length - sizeof(uint))
            throw new IOException("the server broke the protocol: a name longer than its reply");
        int nameBytes = BinaryPrimitives.ReadInt32BigEndian(data);
        ReadOnlySpan<byte> text = data[sizeof(uint)..];
        return (Encoding.UTF8.GetString(text[..nameBytes]), Encoding.UTF8.GetString(text[nameBytes..]));
    }

    /// <summary>The data of INFO and GO: an export, and what is wanted beside its size: block sizes always.</summary>
    private static byte[] InfoRequest(string export, params ReadOnlySpan<NbdInfoType> more)
    {
        byte[] name = Encoding.UTF8.GetBytes(export);
        byte[] data = new byte[sizeof(uint) + name.Length + ((2 + more.Length) * sizeof(ushort))];
        BinaryPrimitives.WriteUInt32BigEndian(data, (uint)name.Length);
        name.CopyTo(data, sizeof(uint));
        Span<byte> types = data.AsSpan(sizeof(uint) + name.Length);
        BinaryPrimitives.WriteUInt16BigEndian(types, (ushort)(1 + more.Length));
        BinaryPrimitives.WriteUInt16BigEndian(types[sizeof(ushort)..], (ushort)NbdInfoType.BlockSize);
        for (int i = 0; i < more.Length; i++)
            BinaryPrimitives.WriteUInt16BigEndian(types[((2 + i) * sizeof(ushort))..], (ushort)more[i]);
        return data;
    }

    private async Task<bool> AskAsync(NbdOption option, byte[] data, CancellationToken cancellation)
    {
        (NbdOptionReply reply, string _) = await _exchange.RunAsync(option, data, (_, _) => { }, cancellation);
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
            NbdOptionReply.ErrorPolicy => $"Denied by server for option {NameOf(option)}",
            NbdOptionReply.ErrorTlsRequired => $"TLS negotiation required before option {NameOf(option)}\nDid you forget a valid tls-creds?",
            NbdOptionReply.ErrorShutdown => $"Server shutting down before option {NameOf(option)}",
            NbdOptionReply.ErrorBlockSizeRequired => $"Server requires INFO_BLOCK_SIZE for option {NameOf(option)}",
            _ => $"Server refuses option {NameOf(option)}: {reply}",
        };
        if (message is not null)
            throw new IOException(text.Length > 0 ? $"{message}\nserver reported: {text}" : message);
    }

    private static string NameOf(NbdOption option) => $"{(uint)option} ({option.ToString().ToLowerInvariant()})";
}
