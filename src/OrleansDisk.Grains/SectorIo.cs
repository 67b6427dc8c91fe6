using OrleansDisk.Abstractions;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Grains;

/// <summary>Carries out the requests of a batch and reports how each of them ends. Its calls never fail.</summary>
internal readonly struct SectorIo(SharedDisk disk, ISectorCompletions completions)
{
    private Qcow2Image Image => disk.Image!;

    public ValueTask RunAsync(int index, in SectorRequest request)
    {
        if (WhyNot(index, request, out SectorError error) is { } reason)
        {
            completions.Complete(index, error, reason);
            return ValueTask.CompletedTask;
        }
        ValueTask running;
        try
        {
            running = Start(index, request);
        }
        catch (Exception e)
        {
            running = ValueTask.FromException(e);
        }
        if (!running.IsCompletedSuccessfully)
            return FinishAsync(index, running);
        completions.Complete(index, SectorError.None, null);
        return ValueTask.CompletedTask;
    }

    private ValueTask Start(int index, in SectorRequest request)
    {
        bool fua = (request.Flags & SectorFlags.Fua) != 0;
        switch (request.Command)
        {
            case SectorCommand.Read when (request.Flags & SectorFlags.ReportHoles) != 0 && request.Bytes >= SparseRead.MinBytes:
                return ReadSparseAsync(index, request.Offset);
            case SectorCommand.Read:
                return Image.ReadAsync(request.Offset, completions.ReadTarget(index));
            case SectorCommand.Write:
                return Image.WriteAsync(request.Offset, request.Payload, fua);
            case SectorCommand.WriteZeroes:
                bool mayUnmap = (request.Flags & SectorFlags.KeepAllocated) == 0;
                return Image.WriteZeroesAsync(request.Offset, request.Bytes, mayUnmap, fua);
            case SectorCommand.Discard:
                return Image.DiscardAsync(request.Offset, request.Bytes, fua);
            case SectorCommand.Flush:
                return Image.FlushAsync();
            default:
                return ReportStatusAsync(index, request.Offset, request.Bytes);
        }
    }

    private async ValueTask FinishAsync(int index, ValueTask running)
    {
        ISectorCompletions target = completions; // the struct is copied by the time this goes on
        try
        {
            await running;
        }
        catch (Exception e)
        {
            target.Complete(index, ImageErrors.Of(e), e.Message);
            return;
        }
        target.Complete(index, SectorError.None, null);
    }

    private ValueTask ReadSparseAsync(int index, long offset)
    {
        ISectorCompletions told = completions;
        return SparseRead.RunAsync(Image, disk.Layers, offset, told.ReadTarget(index),
            extent => told.AddExtent(index, HeldImage.Describe(extent)));
    }

    private async ValueTask ReportStatusAsync(int index, long offset, long bytes)
    {
        await foreach (MapExtent extent in MapOperation.WalkAsync(disk.Layers, offset, bytes))
        {
            if (!completions.AddExtent(index, HeldImage.Describe(extent)))
                return;
        }
    }

    /// <summary>What is wrong with a request; batches come from other programs too.</summary>
    private string? WhyNot(int index, in SectorRequest request, out SectorError error)
    {
        error = SectorError.InvalidArgument;
        if (request.Command > SectorCommand.Status)
            return $"there is no command {(int)request.Command}";
        if (request.Offset < 0 || request.Bytes < 0 || request.Offset > Image.VirtualBytes - request.Bytes)
            return $"{request.Bytes} bytes at {request.Offset} are not inside the disk of {Image.VirtualBytes} bytes";
        switch (request.Command)
        {
            case SectorCommand.Read when request.Bytes > SectorBatch.MaxTransferBytes:
            case SectorCommand.Write when request.Bytes > SectorBatch.MaxTransferBytes:
                return $"a transfer of {request.Bytes} bytes; at most {SectorBatch.MaxTransferBytes} are allowed";
            case SectorCommand.Read when completions.ReadTarget(index).Length != request.Bytes:
            case SectorCommand.Write when request.Payload.Length != request.Bytes:
                return $"the buffer does not have the {request.Bytes} bytes of the request";
            case SectorCommand.Write or SectorCommand.WriteZeroes or SectorCommand.Discard when Image.IsReadOnly:
                error = SectorError.ReadOnly;
                return "the image is open for reading only";
            default:
                return null;
        }
    }
}
