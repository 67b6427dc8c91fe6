using OrleansDisk.Abstractions;

namespace OrleansDisk.Client;

/// <summary>
/// One client's use of an image's grain: knows the opening of the image, keeps it open, opens it again when it was
/// closed meanwhile, and sends again what was refused for that reason. What it can't repair it reports: completed
/// writes that no flush had covered when their opening ended with an error. Many threads may use it at once.
/// </summary>
public sealed class ImageConnection : IAsyncDisposable
{
    /// <summary>How often a batch is sent before it is given up: each time the image was closed in between.</summary>
    private const int MaxSends = 8;

    private readonly IImageGrain _grain;
    private readonly OpenImage _how;
    private readonly SemaphoreSlim _reopening = new(1);
    private readonly ITimer _keepOpen;
    private readonly LostWrites _lost = new();
    private ImageOpening _opening;

    private ImageConnection(IImageGrain grain, OpenedImage opened, OpenImage how, TimeProvider time)
    {
        (_grain, _how, _opening) = (grain, how, new ImageOpening(opened, _lost));
        TimeSpan period = opened.IdleTime / 4;
        _keepOpen = time.CreateTimer(_ => KeepOpen(), null, period, period);
    }

    /// <summary>The image as it was opened last.</summary>
    public OpenedImage Image => Opening.Image;

    /// <summary>
    /// The present opening of the image. Who reaches that image without this connection, because it is open in the same
    /// process, tells it of completed writes and flushes.
    /// </summary>
    public ImageOpening Opening => Volatile.Read(ref _opening);

    /// <summary>
    /// Whether completed writes that no flush had covered may be lost. Every request fails from then on; who wants to go
    /// on opens a connection of his own making, knowing that.
    /// </summary>
    public bool HasLostWrites => _lost.Any;

    /// <summary>Opens an image.</summary>
    /// <param name="grains">The way to the grains.</param>
    /// <param name="image">Key of the image, POOL/IMAGE.</param>
    /// <param name="readOnly">Whether this client will not write.</param>
    /// <param name="time">Where time comes from.</param>
    /// <param name="snapshot">The id or name of the internal snapshot that is read in place of the disk, or null.</param>
    /// <exception cref="ImageException">It can't be opened.</exception>
    public static Task<ImageConnection> OpenAsync(IGrainFactory grains, string image, bool readOnly, TimeProvider time, string? snapshot = null) =>
        OpenAsync(grains.GetGrain<IImageGrain>(ImageKey.Parse(image).ToString()), readOnly, time, snapshot);

    /// <inheritdoc cref="OpenAsync(IGrainFactory, string, bool, TimeProvider, string)"/>
    public static async Task<ImageConnection> OpenAsync(IImageGrain grain, bool readOnly, TimeProvider time, string? snapshot = null)
    {
        var how = new OpenImage { ReadOnly = readOnly || snapshot is not null, Snapshot = snapshot };
        return new ImageConnection(grain, await OpenAsync(grain, how), how, time);
    }

    /// <summary>
    /// Sends a batch. Each of its requests ends exactly once, whatever happens.
    /// </summary>
    /// <returns>
    /// True when the batch may be used again. False when the call was lost while the grain had it: its requests end
    /// some time, and it must be left alone for good.
    /// </returns>
    public async ValueTask<bool> SubmitAsync(ImageBatch batch)
    {
        for (int sends = 1; ; sends++)
        {
            ImageOpening opening = Volatile.Read(ref _opening);
            if (_lost.Any)
            {
                batch.Fail(SectorError.Failed, $"image '{opening.Image.Image}' was closed with an error, and writes that "
                    + "were not flushed may be lost; open it again");
                return true;
            }
            batch.Address(opening);
            (SectorError error, string? message) = await SendAsync(batch, opening);
            if (error == SectorError.None)
                return true;
            if (!batch.Message.TryAbandon())
                return false;
            if (error is SectorError.StaleGeneration or SectorError.Unavailable && sends < MaxSends)
            {
                // Sent again only once the opening that it was meant for has ended, and can't do it a second time.
                string? failure = await ReopenAsync(opening);
                if (Volatile.Read(ref _opening) != opening)
                    continue;
                message = failure ?? message;
            }
            batch.Fail(error, message);
            return true;
        }
    }

    /// <summary>Asks the grain for the image as it is now: it may have grown, or been closed.</summary>
    /// <exception cref="ImageException">It can't be opened any more.</exception>
    public async Task RefreshAsync()
    {
        await _reopening.WaitAsync();
        try
        {
            await OpenAgainAsync(_opening);
        }
        finally
        {
            _reopening.Release();
        }
    }

    /// <inheritdoc cref="IImageGrain.GetDirtyExtentsAsync"/>
    public Task<ReadOnlyMemory<DirtyExtent>> GetDirtyExtentsAsync(string bitmap, long offset, long bytes) =>
        CallAsync(() => _grain.GetDirtyExtentsAsync(bitmap, offset, bytes));

    /// <inheritdoc cref="IImageGrain.ListBitmapsAsync"/>
    public Task<ReadOnlyMemory<ImageBitmap>> ListBitmapsAsync() => CallAsync(_grain.ListBitmapsAsync);

    public ValueTask DisposeAsync()
    {
        _reopening.Dispose();
        return _keepOpen.DisposeAsync();
    }

    /// <summary>One call; delivers its results if it succeeds, else says why not.</summary>
    private async ValueTask<(SectorError Error, string? Message)> SendAsync(ImageBatch batch, ImageOpening opening)
    {
        SectorBatchResult result;
        try
        {
            result = await _grain.SubmitAsync(batch.Message);
        }
        catch (Exception e)
        {
            return Describe(e);
        }
        if (result.Refusal != SectorError.None)
            return (result.Refusal, result.Message);
        if (result.Image != opening.Image.Image || result.Generation != opening.Image.Generation)
            return (SectorError.InputOutput, $"a reply of '{result.Image}' ({result.Generation}) to a request of '{opening.Image.Image}'");
        Deliver(batch, result.Results.Span);
        return (SectorError.None, null);
    }

    /// <summary>Passes on what came from another process; completions in this one were told already.</summary>
    private static void Deliver(ISectorCompletions batch, ReadOnlySpan<SectorResult> results)
    {
        for (int i = 0; i < results.Length; i++)
        {
            SectorResult result = results[i];
            if (result.Error == SectorError.None && !result.Data.IsEmpty)
                result.Data.CopyTo(batch.ReadTarget(i));
            foreach (SectorExtent extent in result.Extents.Span)
                batch.AddExtent(i, extent);
            batch.Complete(i, result.Error, result.Message);
        }
    }

    /// <summary>
    /// Opens the image again after <paramref name="ended"/>; what many callers ask at once is done once.
    /// </summary>
    /// <returns>Why it could not be done, or null.</returns>
    private async Task<string?> ReopenAsync(ImageOpening ended)
    {
        await _reopening.WaitAsync();
        try
        {
            if (Volatile.Read(ref _opening) != ended)
                return null;
            await OpenAgainAsync(ended);
            return null;
        }
        catch (ImageException e)
        {
            return e.Message;
        }
        finally
        {
            _reopening.Release();
        }
    }

    private async Task OpenAgainAsync(ImageOpening previous)
    {
        OpenedImage opened = await OpenAsync(_grain, _how with { Previous = previous.Image.Generation });
        if (opened.Generation == previous.Image.Generation)
        {
            previous.Image = opened;
            return;
        }
        if (!opened.ContinuesPrevious)
            previous.EndWithError();
        Volatile.Write(ref _opening, new ImageOpening(opened, _lost));
    }

    private static Task<OpenedImage> OpenAsync(IImageGrain grain, OpenImage how) => CallAsync(() => grain.OpenAsync(how));

    /// <exception cref="ImageException">It failed, for whatever reason.</exception>
    private static async Task<T> CallAsync<T>(Func<Task<T>> call)
    {
        try
        {
            return await call();
        }
        catch (Exception e) when (e is not ImageException)
        {
            (SectorError error, string message) = Describe(e);
            throw new ImageException(error, message, e);
        }
    }

    private static (SectorError Error, string Message) Describe(Exception e) => e switch
    {
        ImageException known => (known.Error, known.Message),
        TimeoutException or OrleansException => (SectorError.Unavailable, $"the image's grain can't be reached: {e.Message}"),
        _ => (SectorError.InputOutput, e.Message),
    };

    private void KeepOpen() => _ = KeepOpenAsync();

    private async Task KeepOpenAsync()
    {
        try
        {
            await _grain.KeepOpenAsync();
        }
        catch (Exception)
        {
            // The next request finds out, and says so.
        }
    }
}
