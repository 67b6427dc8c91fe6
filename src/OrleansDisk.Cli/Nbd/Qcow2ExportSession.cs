using OrleansDisk.Nbd.Protocol;
using OrleansDisk.Nbd.Server;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Concurrency;
using OrleansDisk.Qcow2.Data;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Cli.Nbd;

/// <summary>
/// One connection. What a batch asks for begins in one turn of the image, on the connection's own thread if the image is
/// idle.
/// </summary>
internal sealed class Qcow2ExportSession : INbdExportSession
{
    private readonly IDiskSource _disk;
    private readonly Qcow2Image? _image;
    private readonly IReadOnlyList<MapLayer> _layers;
    private readonly ImageTurns _turns;

    /// <summary>Begins the request that it is given: made once, so that a queued request costs nothing more.</summary>
    private readonly SendOrPostCallback _begin;

    public Qcow2ExportSession(
        IDiskSource disk, Qcow2Image? image, IReadOnlyList<MapLayer> layers, ImageTurns turns, NbdExportInfo info)
    {
        (_disk, _image, _layers, _turns, Info) = (disk, image, layers, turns, info);
        _begin = request => Begin((NbdRequest)request!);
    }

    public NbdExportInfo Info { get; }

    public void Submit(ReadOnlySpan<NbdRequest> batch)
    {
        if (!_turns.TryEnter())
        {
            foreach (NbdRequest request in batch)
                _turns.Post(_begin, request);
            return;
        }
        try
        {
            foreach (NbdRequest request in batch)
                Begin(request);
        }
        finally
        {
            _turns.Leave();
        }
    }

    public ValueTask DisposeAsync() => ValueTask.CompletedTask;

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
            request.Complete(NbdError.None);
        else
            _ = FinishAsync(request, work);
    }

    private static async Task FinishAsync(NbdRequest request, ValueTask work)
    {
        try
        {
            await work;
        }
        catch (Exception e)
        {
            request.Complete(ErrorFor(e), e.Message);
            return;
        }
        request.Complete(NbdError.None);
    }

    private ValueTask StartAsync(NbdRequest request)
    {
        bool fua = request.Flags.HasFlag(NbdCommandFlags.Fua);
        return request.Command switch
        {
            NbdCommand.Read when request.WantsHoles && request.Length >= SparseRead.MinBytes => ReadSparseAsync(request),
            NbdCommand.Read => _disk.ReadAsync(request.Offset, request.Buffer),
            NbdCommand.BlockStatus => ReportExtentsAsync(request),
            NbdCommand.Flush => _image?.FlushAsync() ?? ValueTask.CompletedTask,
            NbdCommand.Cache => ValueTask.CompletedTask,
            _ when _image is null => throw new NotSupportedException($"{request.Command} on a read-only export"),
            NbdCommand.Write => _image.WriteAsync(request.Offset, request.Buffer, fua),
            NbdCommand.Trim => _image.DiscardAsync(request.Offset, request.Length, fua),
            NbdCommand.WriteZeroes => _image.WriteZeroesAsync(
                request.Offset, request.Length, mayUnmap: !request.Flags.HasFlag(NbdCommandFlags.NoHole), fua),
            _ => throw new NotSupportedException($"{request.Command}"),
        };
    }

    private ValueTask ReadSparseAsync(NbdRequest request) => SparseRead.RunAsync(
        _disk, _layers, request.Offset, request.Buffer, extent => request.AddExtent((uint)extent.Bytes, StateOf(extent)));

    private async ValueTask ReportExtentsAsync(NbdRequest request)
    {
        await foreach (MapExtent extent in MapOperation.WalkAsync(_layers, request.Offset, request.Length))
        {
            if (!request.AddExtent((uint)extent.Bytes, StateOf(extent)))
                return;
        }
    }

    private static NbdExtentState StateOf(MapExtent extent) =>
        (extent.IsData ? NbdExtentState.Data : NbdExtentState.Hole) | (extent.IsZero ? NbdExtentState.Zero : NbdExtentState.Data);

    private static NbdError ErrorFor(Exception e) => e switch
    {
        NoSpaceException or BlockFileException { IsNoSpace: true } => NbdError.NoSpace,
        NotSupportedException => NbdError.NotSupported,
        ArgumentOutOfRangeException => NbdError.InvalidArgument,
        _ => NbdError.InputOutput,
    };
}
