using OrleansDisk.Nbd.Protocol;
using OrleansDisk.Nbd.Server;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Concurrency;
using OrleansDisk.Qcow2.Data;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Exports;

/// <summary>Requests of one batch that are started in one turn of the image; used again and again.</summary>
internal sealed class RequestTurn(DiskSession session)
{
    private NbdRequest[] _requests = new NbdRequest[4];
    private int _count;
    private long _writtenBefore;

    public void Add(NbdRequest request)
    {
        if (_count == _requests.Length)
            Array.Resize(ref _requests, _count * 2);
        _requests[_count++] = request;
    }

    /// <summary>Runs the turn: on this thread when the image is idle, else as soon as it can.</summary>
    public void Start()
    {
        _writtenBefore = session.Account?.WrittenCount ?? 0;
        ImageTurns turns = session.Disk.Turns;
        if (!turns.TryEnter())
        {
            turns.Post(static turn => ((RequestTurn)turn!).Run(), this);
            return;
        }
        try
        {
            Run();
        }
        finally
        {
            turns.Leave();
        }
    }

    private void Run()
    {
        SharedDisk disk = session.Disk;
        if (disk.HasEnded)
        {
            session.Refuse(_requests.AsSpan(0, _count));
        }
        else
        {
            session.TakeLease();
            for (int i = 0; i < _count; i++)
                Begin(_requests[i]);
        }
        Array.Clear(_requests, 0, _count);
        _count = 0;
        session.Return(this);
    }

    /// <summary>Starts a request. One that completes at once, as most do, needs no state machine.</summary>
    private void Begin(NbdRequest request)
    {
        ValueTask work;
        try
        {
            work = StartAsync(request);
        }
        catch (Exception e)
        {
            work = ValueTask.FromException(e);
        }
        if (work.IsCompletedSuccessfully)
            Succeed(request, _writtenBefore);
        else
            _ = FinishAsync(request, work, _writtenBefore);
    }

    private async Task FinishAsync(NbdRequest request, ValueTask work, long writtenBefore)
    {
        session.Disk.Begin();
        try
        {
            await work;
        }
        catch (Exception e)
        {
            request.Complete(RequestErrors.Of(e), e.Message);
            session.Disk.End();
            return;
        }
        Succeed(request, writtenBefore);
        session.Disk.End();
    }

    private void Succeed(NbdRequest request, long writtenBefore)
    {
        if (session.Account is { } account)
        {
            bool changes = request.Command is NbdCommand.Write or NbdCommand.WriteZeroes or NbdCommand.Trim;
            if (changes && (request.Flags & NbdCommandFlags.Fua) == 0)
                account.NoteWritten();
            else if (request.Command == NbdCommand.Flush)
                account.NoteFlushed(writtenBefore);
        }
        request.Complete(NbdError.None);
    }

    private ValueTask StartAsync(NbdRequest request)
    {
        SharedDisk disk = session.Disk;
        IWritableDisk? writable = disk.Writable;
        bool fua = (request.Flags & NbdCommandFlags.Fua) != 0;
        return request.Command switch
        {
            NbdCommand.Read when request.WantsHoles && request.Length >= SparseRead.MinBytes => ReadSparseAsync(request),
            NbdCommand.Read => disk.Source.ReadAsync(request.Offset, request.Buffer),
            NbdCommand.BlockStatus => ReportExtentsAsync(request),
            NbdCommand.Flush => writable?.FlushAsync() ?? ValueTask.CompletedTask,
            NbdCommand.Cache => ValueTask.CompletedTask, // a hint; the page cache does what it does
            _ when writable is null => throw new NotSupportedException($"{request.Command} on a read-only export"),
            NbdCommand.Write => writable.WriteAsync(request.Offset, request.Buffer, fua),
            NbdCommand.Trim => writable.DiscardAsync(request.Offset, request.Length, fua),
            NbdCommand.WriteZeroes => writable.WriteZeroesAsync(
                request.Offset, request.Length, mayUnmap: (request.Flags & NbdCommandFlags.NoHole) == 0, fua),
            _ => throw new NotSupportedException($"{request.Command}"),
        };
    }

    private ValueTask ReadSparseAsync(NbdRequest request) => SparseRead.RunAsync(session.Disk.Source, session.Disk.Layers,
        request.Offset, request.Buffer, extent => request.AddExtent(extent.Bytes, StateOf(extent)));

    private async ValueTask ReportExtentsAsync(NbdRequest request)
    {
        foreach (int context in request.WantedContexts)
            await session.Contexts[context].ReportAsync(request, context, session.Disk);
        if (!request.WantsAllocation)
            return;
        await foreach (MapExtent extent in MapOperation.WalkAsync(session.Disk.Layers, request.Offset, request.Length))
        {
            if (!request.AddExtent(extent.Bytes, StateOf(extent)))
                return;
        }
    }

    private static NbdExtentState StateOf(MapExtent extent) =>
        (extent.IsData ? NbdExtentState.Data : NbdExtentState.Hole) | (extent.IsZero ? NbdExtentState.Zero : NbdExtentState.Data);
}
