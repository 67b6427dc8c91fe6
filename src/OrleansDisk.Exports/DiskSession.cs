using OrleansDisk.Nbd.Protocol;
using OrleansDisk.Nbd.Server;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Data;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Exports;

/// <summary>Takes requests that were not begun because the disk had been closed.</summary>
public delegate void RefusedRequests(ReadOnlySpan<NbdRequest> requests);

/// <summary>
/// One connection's use of a disk that is open in this process. Reads and overwrites of what its mapping lease covers
/// are done on the connection's thread; what is left of a batch is one turn of the image.
/// </summary>
/// <param name="disk">The disk.</param>
/// <param name="account">Told of completed writes and flushes, or null.</param>
/// <param name="refused">Takes what comes after the disk was closed; null when it can't be, as long as there are sessions.</param>
/// <param name="contexts">The export's metadata contexts beside base:allocation.</param>
public sealed class DiskSession(
    SharedDisk disk, IWriteAccount? account = null, RefusedRequests? refused = null, IReadOnlyList<DiskContext>? contexts = null) : IDisposable
{
    private readonly Lock _gate = new();
    private readonly Stack<RequestTurn> _spare = [];
    private MappingLease? _lease;

    internal SharedDisk Disk => disk;

    internal IWriteAccount? Account => account;

    internal IReadOnlyList<DiskContext> Contexts { get; } = contexts ?? [];

    /// <summary>Whether the disk was closed; requests go to the other place from then on.</summary>
    public bool HasEnded => disk.HasEnded;

    /// <summary>Starts requests; see <see cref="INbdExportSession.Submit"/>.</summary>
    public void Submit(ReadOnlySpan<NbdRequest> batch)
    {
        RequestTurn? turn = null;
        foreach (NbdRequest request in batch)
        {
            if (TryServe(request))
                continue;
            turn ??= Rent();
            turn.Add(request);
        }
        turn?.Start();
    }

    /// <summary>Gives the lease back; on the connection's thread, after its last request was submitted.</summary>
    public void Dispose() => _lease?.Dispose();

    internal void Return(RequestTurn turn)
    {
        lock (_gate)
            _spare.Push(turn);
    }

    internal void Refuse(ReadOnlySpan<NbdRequest> requests)
    {
        if (refused is not null)
        {
            refused(requests);
            return;
        }
        foreach (NbdRequest request in requests)
            request.Complete(NbdError.ShuttingDown, "the image is being closed");
    }

    /// <summary>Takes the lease when the first turn of this session runs: it is given out in a turn.</summary>
    internal void TakeLease()
    {
        if (_lease is null && disk.Image is { } image)
            Volatile.Write(ref _lease, image.Lease());
    }

    private bool TryServe(NbdRequest request)
    {
        if (Volatile.Read(ref _lease) is not { } lease)
            return false;
        try
        {
            switch (request.Command)
            {
                case NbdCommand.Read:
                    // What may have holes to tell of is worth a turn, unless it is data all through.
                    bool mustBeData = request.WantsHoles && request.Length >= SparseRead.MinBytes;
                    if (!lease.TryRead(request.Offset, request.Buffer.Span, mustBeData))
                        return false;
                    break;
                case NbdCommand.Write when (request.Flags & NbdCommandFlags.Fua) == 0:
                    if (!lease.TryWrite(request.Offset, request.Buffer.Span))
                        return false;
                    account?.NoteWritten();
                    break;
                default:
                    return false;
            }
        }
        catch (Exception e)
        {
            request.Complete(RequestErrors.Of(e), e.Message);
            return true;
        }
        request.Complete(NbdError.None);
        return true;
    }

    private RequestTurn Rent()
    {
        lock (_gate)
            return _spare.TryPop(out RequestTurn? turn) ? turn : new RequestTurn(this);
    }
}
