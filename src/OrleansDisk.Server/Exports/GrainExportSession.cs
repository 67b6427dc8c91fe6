using OrleansDisk.Abstractions;
using OrleansDisk.Client;
using OrleansDisk.Exports;
using OrleansDisk.Grains;
using OrleansDisk.Nbd.Protocol;
using OrleansDisk.Nbd.Server;

namespace OrleansDisk.Server.Exports;

/// <summary>
/// One NBD client of an image. While the grain holds the image open in this process, requests go to the image that it
/// lends; else what the client sends together goes to the grain in one call.
/// </summary>
internal sealed class GrainExportSession : INbdExportSession
{
    // Advice beyond this makes clients move more than they want.
    private const int MaxPreferredBytes = 64 << 10;

    private readonly ImageConnection _connection;
    private readonly OpenImages _openImages;
    private readonly Func<ValueTask> _leave;
    private readonly Lock _gate = new();
    private readonly Stack<NbdBatch> _spare = [];
    private readonly RefusedRequests _send;
    private DiskSession? _local;
    private ImageOpening? _localOpening;

    public GrainExportSession(ImageConnection connection, OpenImages openImages, bool isReadOnly, Func<ValueTask> leave)
    {
        (_connection, _openImages, _leave, _send) = (connection, openImages, leave, Send);
        OpenedImage image = connection.Image;
        Info = new NbdExportInfo(image.VirtualBytes)
        {
            IsReadOnly = isReadOnly || image.IsReadOnly,
            CanTrim = true,
            CanWriteZeroes = true,
            CanFastZero = image.CanFastZero,
            CanCache = true,
            CanMultiConnect = true,
            PreferredBlockBytes = (uint)Math.Clamp(image.PreferredBytes, 4096, MaxPreferredBytes),
        };
    }

    public NbdExportInfo Info { get; }

    /// <summary>The export's metadata contexts beside base:allocation.</summary>
    public IReadOnlyList<DirtyBitmapContext> Bitmaps { get; init; } = [];

    public void Submit(ReadOnlySpan<NbdRequest> batch)
    {
        if (Local() is { } local)
            local.Submit(batch);
        else
            Send(batch);
    }

    public ValueTask DisposeAsync()
    {
        _local?.Dispose();
        return _leave();
    }

    /// <summary>The image of the present opening when it is in this process and nothing is lost, else null.</summary>
    private DiskSession? Local()
    {
        if (_connection.HasLostWrites)
            return null; // the connection tells why
        ImageOpening opening = _connection.Opening;
        if (_localOpening == opening)
            return _local is { HasEnded: false } ? _local : null;
        _local?.Dispose();
        _localOpening = opening;
        _local = _openImages.Find(opening.Image.Generation) is { } disk ? new DiskSession(disk, new Account(opening), _send, Bitmaps) : null;
        return _local;
    }

    /// <summary>Sends requests to the grain; also those that came to a local image when it had been closed.</summary>
    private void Send(ReadOnlySpan<NbdRequest> batch)
    {
        NbdBatch carrier = Rent();
        foreach (NbdRequest request in batch)
        {
            if (request.Command == NbdCommand.Cache)
                request.Complete(NbdError.None); // a hint; the page cache does what it does
            else if (request.WantedContexts.Count > 0)
                _ = ReportBitmapsAsync(request);
            else
                carrier.Add(request);
        }
        _ = SendAsync(carrier);
    }

    /// <summary>Asks the grain what bitmaps say, and then what is allocated if that is wanted, too.</summary>
    private async Task ReportBitmapsAsync(NbdRequest request)
    {
        try
        {
            foreach (int context in request.WantedContexts)
            {
                ReadOnlyMemory<DirtyExtent> extents = await _connection.GetDirtyExtentsAsync(Bitmaps[context].Bitmap, request.Offset, Math.Min(request.Length, NbdBatch.MaxStatusBytes));
                foreach (DirtyExtent extent in extents.ToArray())
                {
                    if (!request.AddExtent(context, extent.Bytes, DirtyBitmapContext.FlagsOf(extent.IsDirty)))
                        break;
                }
            }
        }
        catch (ImageException e)
        {
            request.Complete(NbdBatch.ErrorOf(e.Error), e.Message);
            return;
        }
        if (!request.WantsAllocation)
        {
            request.Complete(NbdError.None);
            return;
        }
        NbdBatch carrier = Rent();
        carrier.Add(request);
        await SendAsync(carrier);
    }

    private async Task SendAsync(NbdBatch batch)
    {
        if (!batch.Close() || await _connection.SubmitAsync(batch))
            Return(batch);
    }

    private NbdBatch Rent()
    {
        lock (_gate)
            return _spare.TryPop(out NbdBatch? batch) ? batch : new NbdBatch();
    }

    private void Return(NbdBatch batch)
    {
        batch.Clear();
        lock (_gate)
            _spare.Push(batch);
    }

    /// <summary>Writes to the local image, as the connection accounts for them.</summary>
    private sealed class Account(ImageOpening opening) : IWriteAccount
    {
        public long WrittenCount => opening.WrittenCount;

        public void NoteWritten() => opening.NoteWritten();

        public void NoteFlushed(long writtenBefore) => opening.NoteFlushed(writtenBefore);
    }
}
