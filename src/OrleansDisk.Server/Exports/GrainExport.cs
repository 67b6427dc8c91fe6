using OrleansDisk.Abstractions;
using OrleansDisk.Client;
using OrleansDisk.Exports;
using OrleansDisk.Grains;
using OrleansDisk.Nbd.Server;
using OrleansDisk.Server.Configuration;

namespace OrleansDisk.Server.Exports;

/// <summary>An image's grain as an NBD export. All clients of the export share one connection to the grain.</summary>
internal sealed class GrainExport(IGrainFactory grains, OpenImages openImages, TimeProvider time, ExportSetting setting) : INbdExport
{
    private readonly IReadOnlyList<DirtyBitmapContext> _bitmaps = [.. setting.Bitmaps.Select(name => new DirtyBitmapContext(name))];
    private readonly Lock _gate = new();
    private SharedConnection? _shared;

    public string Name => setting.Name;

    public string Description => setting.Description;

    public IReadOnlyList<string> MetaContexts { get; } = [.. setting.Bitmaps.Select(DirtyBitmapContext.NameOf)];

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
            await EnsureBitmapsAsync(connection);
            if (!connection.HasLostWrites)
                return new GrainExportSession(connection, openImages, setting.IsReadOnly, () => LeaveAsync(shared)) { Bitmaps = _bitmaps };
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

    /// <summary>A client that asked for a bitmap must not take it for a clean one when it is none at all.</summary>
    /// <exception cref="ImageException">A bitmap is not there, or may have missed changes.</exception>
    private async Task EnsureBitmapsAsync(ImageConnection connection)
    {
        if (_bitmaps.Count == 0)
            return;
        ImageBitmap[] found = (await connection.ListBitmapsAsync()).ToArray();
        foreach (DirtyBitmapContext context in _bitmaps)
        {
            ImageBitmap? bitmap = Array.Find(found, bitmap => bitmap.Name == context.Bitmap);
            if (bitmap is null)
                throw new ImageException(SectorError.NotFound, $"image '{setting.Image}': Bitmap '{context.Bitmap}' is not found");
            if (bitmap.IsInconsistent)
            {
                throw new ImageException(SectorError.Inconsistent,
                    $"image '{setting.Image}': Bitmap '{context.Bitmap}' is inconsistent and cannot be used; remove it, and begin with a full backup");
            }
        }
    }

    /// <summary>One more client on the connection that there is, unless that is spoilt; then on a new one.</summary>
    private SharedConnection Join(out bool isFirst)
    {
        lock (_gate)
        {
            isFirst = _shared is null || _shared.IsSpoilt;
            if (isFirst)
                _shared = new SharedConnection(ImageConnection.OpenAsync(grains, setting.Image, setting.IsReadOnly, time, setting.Snapshot));
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
