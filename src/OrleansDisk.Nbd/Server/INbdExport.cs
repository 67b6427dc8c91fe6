namespace OrleansDisk.Nbd.Server;

/// <summary>
/// What an NBD server serves under one name. This is the seam between the protocol and whatever holds the bytes:
/// the engine itself in <c>odisk nbd</c>, an image's grain in the daemon.
/// </summary>
public interface INbdExport
{
    /// <summary>The name clients ask for; empty for the default export.</summary>
    string Name { get; }

    /// <summary>Free text for people (NBD_INFO_DESCRIPTION); empty when there is none.</summary>
    string Description { get; }

    /// <summary>
    /// Names of the metadata contexts that clients can ask for beside base:allocation, such as qemu:dirty-bitmap:NAME.
    /// Requests name them by their places in this list, which never changes.
    /// </summary>
    IReadOnlyList<string> MetaContexts => [];

    /// <summary>
    /// Connects one client: called once for every connection that enters the transmission phase, before the size is
    /// told to the client, and for one that only asks for information (NBD_OPT_INFO), which ends soon. Fails with
    /// <see cref="NbdExportException"/> when the export can't be had. The token is cancelled when the client or the
    /// server goes away meanwhile.
    /// </summary>
    ValueTask<INbdExportSession> ConnectAsync(CancellationToken cancellation);
}

/// <summary>One connection's use of an export. Disposed when the connection ends, after its last request completed.</summary>
public interface INbdExportSession : IAsyncDisposable
{
    /// <summary>Size, flags and block sizes as this client will see them.</summary>
    NbdExportInfo Info { get; }

    /// <summary>
    /// Starts every request of <paramref name="batch"/>, in order; called on the connection's own thread, never twice
    /// at once. Each request is completed exactly once, on any thread and in any order, by
    /// <see cref="NbdRequest.Complete"/>; requests that complete before this method returns share one send.
    /// The span is only valid during the call; the requests are valid until they complete. What it throws closes the
    /// connection, and its open requests fail.
    /// </summary>
    void Submit(ReadOnlySpan<NbdRequest> batch);
}

/// <summary>The facts of an export that the handshake tells.</summary>
/// <param name="Bytes">Size in bytes.</param>
public readonly record struct NbdExportInfo(long Bytes)
{
    public bool IsReadOnly { get; init; }

    /// <summary>Whether NBD_CMD_TRIM is offered.</summary>
    public bool CanTrim { get; init; }

    /// <summary>Whether NBD_CMD_WRITE_ZEROES is offered.</summary>
    public bool CanWriteZeroes { get; init; }

    /// <summary>Whether NBD_CMD_FLAG_FAST_ZERO is offered.</summary>
    public bool CanFastZero { get; init; }

    /// <summary>Whether NBD_CMD_CACHE is offered: a hint, which may complete without effect.</summary>
    public bool CanCache { get; init; }

    /// <summary>Whether a flush on one connection covers writes that completed on every connection.</summary>
    public bool CanMultiConnect { get; init; }

    /// <summary>Smallest request and alignment, in bytes: a power of two from 1 to 64 KiB.</summary>
    public uint MinimumBlockBytes { get; init; } = 1;

    /// <summary>The request size that suits the export, in bytes.</summary>
    public uint PreferredBlockBytes { get; init; } = 4096;
}

/// <summary>An export that can't be opened; the message is sent to the client.</summary>
public sealed class NbdExportException(string message) : Exception(message);
