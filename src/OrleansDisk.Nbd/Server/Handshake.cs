using System.Buffers.Binary;
using System.Numerics;
using OrleansDisk.Nbd.Protocol;

namespace OrleansDisk.Nbd.Server;

/// <summary>The handshake of one connection: fixed newstyle; TLS is forced or not to be had (NBD protocol, "Handshake").</summary>
internal sealed class Handshake(
    Connection connection, StreamSocket socket, HandshakeDeadline deadline, CancellationToken cancellation)
{
    // Enough for the longest name and many queries; nothing longer is read into memory.
    private const int MaxOptionBytes = 64 << 10;
    private const int MaxSkippedBytes = 1 << 20;

    private readonly OptionReplies _replies = new(socket);
    private readonly byte[] _data = new byte[MaxOptionBytes];
    private bool _fixedNewstyle;
    private bool _noZeroes;
    private bool _isEncrypted;
    private bool _structuredReplies;
    private bool _extendedHeaders;
    private ContextSelection? _contexts;
    private INbdExport? _export;
    private INbdExportSession? _session;

    /// <summary>Negotiates until the transmission phase starts; null when the connection is to be closed.</summary>
    public NegotiatedExport? Run()
    {
        try
        {
            Greet();
            NegotiatedExport? negotiated = ReadClientFlags() ? AnswerOptions() : null;
            if (negotiated is null)
                CloseSession();
            return negotiated;
        }
        catch
        {
            CloseSession();
            throw;
        }
    }

    private void Greet()
    {
        Span<byte> greeting = stackalloc byte[18];
        BinaryPrimitives.WriteUInt64BigEndian(greeting, NbdMagic.Greeting);
        BinaryPrimitives.WriteUInt64BigEndian(greeting[8..], NbdMagic.Option);
        BinaryPrimitives.WriteUInt16BigEndian(
            greeting[16..], (ushort)(NbdHandshakeFlags.FixedNewstyle | NbdHandshakeFlags.NoZeroes));
        socket.Send(greeting);
    }

    private bool ReadClientFlags()
    {
        Span<byte> answer = stackalloc byte[4];
        socket.ReceiveExactly(answer);
        var flags = (NbdClientFlags)BinaryPrimitives.ReadUInt32BigEndian(answer);
        if ((flags & ~(NbdClientFlags.FixedNewstyle | NbdClientFlags.NoZeroes)) != 0)
        {
            connection.LogViolation($"unknown client flags 0x{(uint)flags:x}");
            return false;
        }
        _fixedNewstyle = (flags & NbdClientFlags.FixedNewstyle) != 0;
        _noZeroes = (flags & NbdClientFlags.NoZeroes) != 0;
        return true;
    }

    private NegotiatedExport? AnswerOptions()
    {
        Span<byte> header = stackalloc byte[16];
        while (true)
        {
            socket.ReceiveExactly(header);
            ulong magic = BinaryPrimitives.ReadUInt64BigEndian(header);
            uint option = BinaryPrimitives.ReadUInt32BigEndian(header[8..]);
            uint dataBytes = BinaryPrimitives.ReadUInt32BigEndian(header[12..]);
            if (magic != NbdMagic.Option)
            {
                connection.LogViolation($"an option with magic 0x{magic:x16}");
                return null;
            }
            if (!_fixedNewstyle && option != (uint)NbdOption.ExportName)
            {
                connection.LogViolation($"option {option} from a client that did not ask for fixed newstyle");
                return null;
            }
            _replies.Start(option);
            if (dataBytes > MaxOptionBytes)
            {
                if (!RefuseLongOption(option, dataBytes))
                    return null;
                continue;
            }
            socket.ReceiveExactly(_data.AsSpan(0, (int)dataBytes));
            if (Answer((NbdOption)option, _data.AsSpan(0, (int)dataBytes), out NegotiatedExport? negotiated))
                return negotiated;
        }
    }

    private bool RefuseLongOption(uint option, uint dataBytes)
    {
        connection.LogViolation($"option {option} with {dataBytes} bytes of data, more than {MaxOptionBytes}");
        if (dataBytes > MaxSkippedBytes || option == (uint)NbdOption.ExportName)
            return false;
        for (uint left = dataBytes; left > 0;)
        {
            int bytes = (int)Math.Min(left, MaxOptionBytes);
            socket.ReceiveExactly(_data.AsSpan(0, bytes));
            left -= (uint)bytes;
        }
        _replies.Fail(NbdOptionReply.ErrorTooBig, $"the option's data is longer than {MaxOptionBytes} bytes");
        _replies.Send();
        return true;
    }

    /// <summary>Answers one option; true when it was the last, <paramref name="negotiated"/> null to close then.</summary>
    private bool Answer(NbdOption option, ReadOnlySpan<byte> data, out NegotiatedExport? negotiated)
    {
        negotiated = null;
        if (connection.Options.Tls is not null && !_isEncrypted && option is not (NbdOption.StartTls or NbdOption.Abort))
            return RefuseBeforeTls(option);
        if (option == NbdOption.ExportName)
        {
            negotiated = AnswerExportName(data);
            return true;
        }
        bool isLast = option == NbdOption.Abort;
        try
        {
            if (option is NbdOption.Info or NbdOption.Go)
            {
                negotiated = AnswerInfo(data);
                isLast = option == NbdOption.Go && negotiated is not null;
            }
            else
            {
                AnswerStateless(option, new OptionData(data));
            }
        }
        catch (InvalidOptionException e)
        {
            connection.LogViolation($"{option}: {e.Message}");
            _replies.Fail(NbdOptionReply.ErrorInvalid, e.Message);
        }
        _replies.Send();
        return isLast;
    }

    /// <summary>The protocol's mode FORCEDTLS; true when the connection is to be closed, since EXPORT_NAME can't be refused.</summary>
    private bool RefuseBeforeTls(NbdOption option)
    {
        string message = $"Option 0x{(uint)option:x} not permitted before TLS";
        if (option == NbdOption.ExportName)
        {
            connection.LogViolation(message);
            return true;
        }
        _replies.Fail(NbdOptionReply.ErrorTlsRequired, message);
        _replies.Send();
        return false;
    }

    /// <summary>"NBD_OPT_STARTTLS". Nothing that was agreed on in the open counts any more.</summary>
    private void StartTls(OptionData data)
    {
        data.MustEnd();
        if (_isEncrypted)
            throw new InvalidOptionException("TLS already enabled");
        if (connection.Options.Tls is not { } credentials)
        {
            _replies.Fail(NbdOptionReply.ErrorPolicy, "TLS not configured");
            return;
        }
        _replies.Acknowledge();
        _replies.Send();
        try
        {
            socket.StartTls(credentials);
        }
        catch (IOException e)
        {
            connection.LogViolation(e.Message);
            throw new ConnectionEndedException();
        }
        _isEncrypted = true;
        _structuredReplies = _extendedHeaders = false;
        _contexts = null;
        CloseSession();
    }

    private void AnswerStateless(NbdOption option, OptionData data)
    {
        switch (option)
        {
            case NbdOption.Abort:
                _replies.Acknowledge();
                break;
            case NbdOption.List:
                data.MustEnd();
                foreach (INbdExport export in connection.Exports)
                    _replies.AddServer(export.Name, export.Description);
                _replies.Acknowledge();
                break;
            case NbdOption.StructuredReply or NbdOption.ExtendedHeaders:
                data.MustEnd();
                AnswerReplyStyle(option);
                break;
            case NbdOption.ListMetaContext:
            case NbdOption.SetMetaContext:
                AnswerMetaContext(option == NbdOption.SetMetaContext, data);
                break;
            case NbdOption.StartTls:
                StartTls(data);
                break;
            default:
                _replies.Fail(NbdOptionReply.ErrorUnsupported, $"option {(uint)option} is not known here");
                break;
        }
    }

    /// <summary>"NBD_OPT_STRUCTURED_REPLY" and "NBD_OPT_EXTENDED_HEADERS", which can't be taken back.</summary>
    private void AnswerReplyStyle(NbdOption option)
    {
        if (_extendedHeaders && option == NbdOption.StructuredReply)
        {
            _replies.Fail(NbdOptionReply.ErrorExtendedHeaders, "extended headers were agreed on already");
            return;
        }
        if (_extendedHeaders)
            throw new InvalidOptionException("extended headers were agreed on already");
        _structuredReplies = true;
        _extendedHeaders = option == NbdOption.ExtendedHeaders;
        _replies.Acknowledge();
    }

    /// <summary>"NBD_OPT_LIST_META_CONTEXT" and "NBD_OPT_SET_META_CONTEXT".</summary>
    private void AnswerMetaContext(bool isSet, OptionData data)
    {
        if (isSet)
            _contexts = null;
        if (!_structuredReplies)
            throw new InvalidOptionException("meta contexts need structured replies, which were not asked for");
        string name = data.TakeString("export name");
        uint queryCount = data.TakeUInt32("number of queries");
        var queries = new List<string>();
        for (uint i = 0; i < queryCount; i++)
            queries.Add(data.TakeString("query"));
        data.MustEnd();
        if (connection.FindExport(name) is not { } export)
        {
            _replies.Fail(NbdOptionReply.ErrorUnknown, $"no export is named '{name}'");
            return;
        }
        ContextSelection selection = isSet
            ? ContextSelection.Select(name, export.MetaContexts, queries) : ContextSelection.List(name, export.MetaContexts, queries);
        if (selection.WantsAllocation)
            _replies.AddMetaContext(isSet ? ContextSelection.AllocationId : 0, ContextSelection.Allocation);
        foreach (int context in selection.Contexts)
            _replies.AddMetaContext(isSet ? ContextSelection.IdOf(context) : 0, export.MetaContexts[context]);
        if (isSet)
            _contexts = selection;
        _replies.Acknowledge();
    }

    private NegotiatedExport? AnswerExportName(ReadOnlySpan<byte> data)
    {
        NegotiatedExport? negotiated = null;
        if (_extendedHeaders)
        {
            connection.LogViolation($"{NbdOption.ExportName} after extended headers");
            return null;
        }
        try
        {
            negotiated = Connect(new OptionData(data).TakeRestAsString("export name"), out string error);
            if (negotiated is null)
                connection.LogViolation($"{NbdOption.ExportName}: {error}");
        }
        catch (InvalidOptionException e)
        {
            connection.LogViolation($"{NbdOption.ExportName}: {e.Message}");
        }
        if (negotiated is not { } export)
            return null;
        _replies.AddExportNameReply(export.Info.Bytes, export.TransmissionFlags, _noZeroes ? 0 : 124);
        _replies.Send();
        return export;
    }

    /// <summary>"NBD_OPT_INFO" and "NBD_OPT_GO"; null after an error reply.</summary>
    private NegotiatedExport? AnswerInfo(ReadOnlySpan<byte> optionData)
    {
        var data = new OptionData(optionData);
        string name = data.TakeString("export name");
        int requestCount = data.TakeUInt16("number of information requests");
        bool wantsName = false, wantsDescription = false, wantsBlockSize = false;
        for (int i = 0; i < requestCount; i++)
        {
            var request = (NbdInfoType)data.TakeUInt16("information request");
            wantsName |= request == NbdInfoType.Name;
            wantsDescription |= request == NbdInfoType.Description;
            wantsBlockSize |= request == NbdInfoType.BlockSize;
        }
        data.MustEnd();
        if (Connect(name, out string error) is not { } export)
        {
            _replies.Fail(NbdOptionReply.ErrorUnknown, error);
            return null;
        }
        _replies.AddExportInfo(export.Info.Bytes, export.TransmissionFlags);
        if (wantsName)
            _replies.AddTextInfo(NbdInfoType.Name, export.Name);
        if (wantsDescription && _export!.Description.Length > 0)
            _replies.AddTextInfo(NbdInfoType.Description, _export.Description);
        uint maximum = connection.Options.MaxRequestBytes;
        uint minimum = export.Info.MinimumBlockBytes;
        if (wantsBlockSize || minimum > 1)
        {
            uint preferred = Math.Max(Math.Max(minimum, 512), export.Info.PreferredBlockBytes);
            _replies.AddBlockSizeInfo(minimum, Math.Min(preferred, 1u << BitOperations.Log2(maximum)), maximum);
        }
        _replies.Acknowledge();
        return export;
    }

    /// <summary>Connects to an export, or keeps the session that an earlier INFO opened.</summary>
    private NegotiatedExport? Connect(string name, out string error)
    {
        INbdExport? export = connection.FindExport(name);
        error = export is null ? $"no export is named '{name}'" : "";
        if (export is null || (!ReferenceEquals(export, _export) && !OpenSession(export, out error)))
            return null;
        return new NegotiatedExport(_session!, export.Name, _session!.Info)
        {
            StructuredReplies = _structuredReplies,
            ExtendedHeaders = _extendedHeaders,
            WantsAllocation = _contexts?.ExportName == name && _contexts.WantsAllocation,
            Contexts = _contexts?.ExportName == name ? _contexts.Contexts : [],
        };
    }

    private bool OpenSession(INbdExport export, out string error)
    {
        CloseSession();
        deadline.Pause();
        try
        {
            // This thread is the connection's own; there is nothing else for it to do.
            _session = export.ConnectAsync(cancellation).AsTask().GetAwaiter().GetResult();
            _export = export;
            NbdExportInfo info = _session.Info;
            bool isSane = info.Bytes >= 0 && BitOperations.IsPow2(info.PreferredBlockBytes)
                && BitOperations.IsPow2(info.MinimumBlockBytes) && info.MinimumBlockBytes <= 64 << 10;
            error = isSane ? "" : $"export '{export.Name}' has an impossible size or block size: {info}";
        }
        catch (Exception e) when (e is NbdExportException or OperationCanceledException)
        {
            error = e.Message;
        }
        catch (Exception e)
        {
            connection.LogFault($"export '{export.Name}' can't be opened", e);
            error = $"export '{export.Name}' can't be opened";
        }
        finally
        {
            deadline.Resume();
        }
        if (error.Length == 0)
            return true;
        connection.Log(error);
        CloseSession();
        return false;
    }

    private void CloseSession()
    {
        INbdExportSession? session = _session;
        _session = null;
        _export = null;
        if (session is not null)
            connection.DisposeSession(session);
    }
}
