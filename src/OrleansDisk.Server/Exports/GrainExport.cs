using OrleansDisk.Abstractions;
using OrleansDisk.Client;
using OrleansDisk.Grains;
using OrleansDisk.Nbd.Server;

namespace OrleansDisk.Server.Exports;

/// <summary>An image's grain as an NBD export. All clients of the export share one connection to the grain.</summary>
internal sealed class GrainExport(
    IGrainFactory grains, OpenImages openImages, TimeProvider time, string name, string image, bool isReadOnly, string description)
    : INbdExport
{
    private readonly Lock _gate = new();
    private SharedConnection? _shared;

    public string Name => name;

    public string Description => description;

    /// <summary>Whether clients are connected.</summary>
    public bool IsInUse
    {
        get
        {
            lock (_gate)
                return _shared is not null;
        }
    }

    public async ValueTask<INbdExportSession> ConnectAsync(CancellationToken cancellation)
    {
        while (true)
        {
            cancellation.ThrowIfCancellationRequested();
            if (await TryConnectAsync() is { } session)
                return session;
        }
    }

    /// <summary>Null when the connection turned out to be spoilt, which the next attempt knows.</summary>
    private async ValueTask<INbdExportSession?> TryConnectAsync()
    {
        SharedConnection shared = Join(out bool isFirst);
        try
        {
            ImageConnection connection = await shared.Opening;
            if (!isFirst)
                await connection.RefreshAsync(); // the image may have grown since, or have been closed
            if (!connection.HasLostWrites)
                return new GrainExportSession(connection, openImages, isReadOnly, () => LeaveAsync(shared));
        }
        catch (Exception e)
        {
            await LeaveAsync(shared);
            if (e is ImageException)
                throw new NbdExportException(e.Message);
            throw;
        }
        await LeaveAsync(shared);
        return null;
    }

    /// <summary>One more client on the connection that there is, unless that is spoilt; then on a new one.</summary>
    private SharedConnection Join(out bool isFirst)
    {
        lock (_gate)
        {
            isFirst = _shared is null || _shared.IsSpoilt;
            if (isFirst)
                _shared = new SharedConnection(ImageConnection.OpenAsync(grains, image, isReadOnly, time));
            _shared!.ClientCount++;
            return _shared;
        }
    }

    private async ValueTask LeaveAsync(SharedConnection shared)
    {
        lock (_gate)
        {
            if (--shared.ClientCount > 0)
                return;
            if (_shared == shared)
                _shared = null;
        }
        if (shared.Opening.IsCompletedSuccessfully)
            await (await shared.Opening).DisposeAsync();
    }

    private sealed class SharedConnection(Task<ImageConnection> opening)
    {
        public Task<ImageConnection> Opening { get; } = opening;

        public int ClientCount { get; set; }

        /// <summary>Whether it failed to open, or has lost writes that only its present clients must answer for.</summary>
        public bool IsSpoilt => Opening.IsCompleted && (!Opening.IsCompletedSuccessfully || Opening.Result.HasLostWrites);
    }
}
