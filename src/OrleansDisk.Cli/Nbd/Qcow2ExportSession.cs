using OrleansDisk.Nbd.Protocol;
using OrleansDisk.Nbd.Server;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Data;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Cli.Nbd;

/// <summary>One connection: each batch of requests is one turn of the image, in which all of them are started.</summary>
internal sealed class Qcow2ExportSession(
    IDiskSource disk, Qcow2Image? image, IReadOnlyList<MapLayer> layers, TurnScheduler turns, NbdExportInfo info)
    : INbdExportSession
{
    public NbdExportInfo Info => info;

    public void Submit(ReadOnlySpan<NbdRequest> batch)
    {
        NbdRequest[] requests = batch.ToArray();
        turns.Start(new Task(() =>
        {
            foreach (NbdRequest request in requests)
                Begin(request);
        }));
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
            NbdCommand.Read => disk.ReadAsync(request.Offset, request.Buffer),
            NbdCommand.BlockStatus => ReportExtentsAsync(request),
            NbdCommand.Flush => image?.FlushAsync() ?? ValueTask.CompletedTask,
            NbdCommand.Cache => ValueTask.CompletedTask,
            _ when image is null => throw new NotSupportedException($"{request.Command} on a read-only export"),
            NbdCommand.Write => image.WriteAsync(request.Offset, request.Buffer, fua),
            NbdCommand.Trim => image.DiscardAsync(request.Offset, request.Length, fua),
            NbdCommand.WriteZeroes => image.WriteZeroesAsync(
                request.Offset, request.Length, mayUnmap: !request.Flags.HasFlag(NbdCommandFlags.NoHole), fua),
            _ => throw new NotSupportedException($"{request.Command}"),
        };
    }

    private ValueTask ReadSparseAsync(NbdRequest request) => SparseRead.RunAsync(
        disk, layers, request.Offset, request.Buffer, extent => request.AddExtent((uint)extent.Bytes, StateOf(extent)));

    private async ValueTask ReportExtentsAsync(NbdRequest request)
    {
        await foreach (MapExtent extent in MapOperation.WalkAsync(layers, request.Offset, request.Length))
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
