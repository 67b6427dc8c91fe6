using OrleansDisk.Abstractions;
using OrleansDisk.Client;
using OrleansDisk.Nbd.Protocol;
using OrleansDisk.Nbd.Server;

namespace OrleansDisk.Server.Exports;

/// <summary>
/// One NBD client of an image: what it sends together goes to the grain in one call, and each request is answered when
/// it ends.
/// </summary>
internal sealed class GrainExportSession : INbdExportSession
{
    // Advice beyond this makes clients move more than they want.
    private const int MaxPreferredBytes = 64 << 10;

    private readonly ImageConnection _connection;
    private readonly Func<ValueTask> _leave;
    private readonly Lock _gate = new();
    private readonly Stack<NbdBatch> _spare = [];

    public GrainExportSession(ImageConnection connection, bool isReadOnly, Func<ValueTask> leave)
    {
        (_connection, _leave) = (connection, leave);
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

    public void Submit(ReadOnlySpan<NbdRequest> batch)
    {
        NbdBatch carrier = Rent();
        foreach (NbdRequest request in batch)
        {
            if (request.Command == NbdCommand.Cache)
                request.Complete(NbdError.None); // a hint; the page cache does what it does
            else
                carrier.Add(request);
        }
        _ = SendAsync(carrier);
    }

    public ValueTask DisposeAsync() => _leave();

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
}
