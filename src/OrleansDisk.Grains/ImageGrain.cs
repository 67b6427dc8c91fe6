using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;
using Orleans.Concurrency;
using Orleans.Placement;
using OrleansDisk.Abstractions;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Check;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Grains;

/// <summary>
/// Owns one image. The image's turns (<see cref="SharedDisk.Turns"/>) are the engine's lock, and are this grain's: it makes
/// them when it opens the image, lends them to sessions of its process, and ends them when it closes it.
/// Operations that open, close or make the file go through a queue, one after the other; requests to the open image run
/// side by side, and the engine keeps them in order where that matters.
/// </summary>
[Reentrant, PreferLocalPlacement]
public sealed partial class ImageGrain : Grain, IImageGrain
{
    /// <summary>Discarded space is back on the host after twice this time at most.</summary>
    private static readonly TimeSpan _upkeepInterval = TimeSpan.FromSeconds(4);

    private readonly Pools _pools;
    private readonly ImageGrainOptions _options;
    private readonly OpenImages _openImages;
    private readonly ILogger _logger;
    private readonly OperationQueue _operations = new();
    private string _keyText = "";
    private ImageKey _key;
    private HeldImage? _held;
    private bool _isKeptUp;

    public ImageGrain(Pools pools, IOptions<ImageGrainOptions> options, OpenImages openImages, ILogger<ImageGrain> logger)
    {
        (_pools, _options, _openImages, _logger) = (pools, options.Value, openImages, logger);
    }

    public override Task OnActivateAsync(CancellationToken cancellationToken)
    {
        _keyText = this.GetPrimaryKeyString();
        _key = ImageKey.Parse(_keyText);
        // Two keys of one image would be two owners.
        if (_key.ToString() != _keyText)
            throw new ImageException(SectorError.InvalidArgument, $"'{_keyText}' is no key; the image's key is '{_key}'");
        return Task.CompletedTask;
    }

    public override Task OnDeactivateAsync(DeactivationReason reason, CancellationToken cancellationToken) =>
        _operations.RunAsync(ReleaseAsync);

    public Task<OpenedImage> OpenAsync(OpenImage how) => DescribingErrorsAsync(async () =>
    {
        HeldImage held = how.Snapshot is { } snapshot ? await HoldSnapshotAsync(snapshot)
            : await HoldAsync(forWriting: !how.ReadOnly && !_pools.Find(_key).IsReadOnly);
        Qcow2Image image = held.Image;
        return new OpenedImage
        {
            Image = _keyText,
            Generation = held.Generation,
            VirtualBytes = image.VirtualBytes,
            IsReadOnly = image.IsReadOnly,
            PreferredBytes = image.Header.Geometry.ClusterBytes,
            CanFastZero = image.Header.Version >= 3,
            ContinuesPrevious = how.Snapshot is not null || how.Previous == held.Generation || _openImages.WasClosedWithoutError(how.Previous),
            IdleTime = _options.IdleTime,
        };
    });

    public ValueTask<SectorBatchResult> SubmitAsync(SectorBatch batch)
    {
        if (batch.Image != _keyText)
            return new(Refuse(SectorError.InvalidArgument, $"a batch for '{batch.Image}' came to '{_keyText}'"));
        if (FindOpening(batch.Generation) is { } opening)
            return new(opening.RunAsync(batch));
        return new(HeldImage.RefuseStale(_keyText, _held?.Generation ?? Guid.Empty));
    }

    public Task CreateAsync(CreateImage what) => InOrderAsync(async () =>
    {
        ImageFile file = _pools.Find(_key);
        if (file.IsReadOnly)
            throw new ImageException(SectorError.ReadOnly, $"image '{_key}': pool '{_key.Pool}' is read-only");
        if (_held is not null || File.Exists(file.Path))
            throw new ImageException(SectorError.AlreadyExists, $"image '{_key}' exists already");
        await ImageCreation.RunAsync(_pools, _key, file.Path, what);
        Log.Created(_logger, _keyText, what.VirtualBytes);
    });

    public Task<ImageDescription> DescribeAsync() => DescribingErrorsAsync(async () =>
    {
        if (_held is { } held)
        {
            long openBytes = new FileInfo(held.Image.FileName).Length;
            return Describe(held.Image.Header, openBytes) with { Generation = held.Generation, IsReadOnly = held.Image.IsReadOnly };
        }
        await using var file = LocalBlockFile.Open(ExistingFile().Path, ImageAccess.ReadShared);
        return Describe(await HeaderReader.ReadAsync(file), file.LengthBytes);
    });

    public Task ResizeAsync(long virtualBytes, bool mayShrink) => DescribingErrorsAsync(async () =>
    {
        if (virtualBytes < 0)
            throw new ImageException(SectorError.InvalidArgument, $"image '{_key}': {virtualBytes} bytes is no size");
        HeldImage held = await HoldForChangeAsync();
        await held.Disk.Turns.RunAsync(() => ResizeOperation.RunAsync(held.Image, virtualBytes, mayShrink, Preallocation.Off));
        return held;
    });

    public async Task<ImageCheckResult> CheckAsync()
    {
        CheckReport? report = null;
        await InOrderAsync(async () =>
        {
            var options = new CheckOptions { MaxKeptFindings = 100 };
            if (_held is { } held)
            {
                await held.Disk.Turns.RunAsync(async () => report = await held.Image.CheckAsync(options));
                return;
            }
            await using var file = LocalBlockFile.Open(ExistingFile().Path, ImageAccess.Read);
            report = await ImageCheck.RunAsync(file, options);
        });
        return new ImageCheckResult
        {
            CorruptionCount = report!.CorruptionCount,
            LeakCount = report.LeakCount,
            CheckErrorCount = report.CheckErrorCount,
            TotalClusters = report.TotalClusters,
            AllocatedClusters = report.AllocatedClusters,
            Findings = report.Findings.Select(finding => finding.Message).ToArray(),
        };
    }

    public Task<ReadOnlyMemory<SectorExtent>> MapAsync(long offset, long bytes) => DescribingErrorsAsync(async () =>
    {
        HeldImage held = await HoldAsync(forWriting: false);
        EnsureInside(held, offset, bytes);
        return await held.Disk.Turns.RunAsync(() => held.MapAsync(offset, bytes));
    });

    public ValueTask<Guid> KeepOpenAsync() => new(_held?.Generation ?? Guid.Empty);

    public Task CloseAsync() => InOrderAsync(async () =>
    {
        await ReleaseAsync();
        DeactivateOnIdle();
    });

    /// <summary>The image, open for writing.</summary>
    private Task<HeldImage> HoldForChangeAsync() => _pools.Find(_key).IsReadOnly
        ? throw new ImageException(SectorError.ReadOnly, $"image '{_key}': pool '{_key.Pool}' is read-only")
        : HoldAsync(forWriting: true);

    /// <summary>The open image; opened, or opened again for writing or after a failure, when needed.</summary>
    private async Task<HeldImage> HoldAsync(bool forWriting)
    {
        if (IsHeld(forWriting))
            return _held!;
        HeldImage? held = null;
        await _operations.RunAsync(async () =>
        {
            if (!IsHeld(forWriting))
            {
                try
                {
                    await ReleaseAsync();
                }
                catch (ImageException)
                {
                    // Logged; whoever used the image so far learns it from the generation.
                }
                _held = await OpenFileAsync(forWriting);
            }
            held = _held;
        });
        return held!; // another operation may have closed it again by now: then its generation is refused
    }

    private bool IsHeld(bool forWriting) =>
        _held is { } held && !held.Image.HasFailed && !(forWriting && held.Image.IsReadOnly);

    private async Task<HeldImage> OpenFileAsync(bool forWriting)
    {
        HeldImage held = await HeldImage.OpenAsync(_keyText, ExistingFile().Path, new Qcow2OpenOptions
        {
            Access = forWriting ? ImageAccess.Write : ImageAccess.Read,
            L2CacheBytes = _options.L2CacheBytes,
            RefcountCacheBytes = _options.RefcountCacheBytes,
        });
        _openImages.Add(held.Generation, held.Disk);
        if (!_isKeptUp)
            _ = this.RegisterGrainTimer(KeepUpAsync, _upkeepInterval, _upkeepInterval);
        _isKeptUp = true;
        Log.Opened(_logger, _keyText, held.Generation, forWriting ? "reading and writing" : "reading");
        return held;
    }

    /// <summary>Gives discarded space back though no client flushes, and lets tables go that nobody uses.</summary>
    private async Task KeepUpAsync(CancellationToken cancellationToken)
    {
        if (_held is not { Image: { IsReadOnly: false, HasFailed: false } } held)
            return;
        try
        {
            await held.Disk.Turns.RunAsync(() => held.Disk.KeepUpAsync(_upkeepInterval));
        }
        catch (Exception e) when (e is IOException or InvariantException)
        {
            // The image has stopped; clients hear of it with their next request.
        }
    }

    /// <summary>Closes the image if it is open. Fails when not everything could be written back.</summary>
    private async Task ReleaseAsync()
    {
        if (_held is not { } held)
            return;
        _held = null; // from here on batches are refused
        await EndViewsAsync();
        Exception? failure = null;
        try
        {
            bool hadFailed = held.Image.HasFailed;
            await held.Disk.Turns.RunAsync(held.Disk.CloseAsync);
            if (hadFailed)
                failure = new Qcow2FailedException("it had stopped", null);
        }
        catch (Exception e) when (e is IOException or InvariantException)
        {
            failure = e;
        }
        _openImages.Remove(held.Generation, withoutError: failure is null);
        if (failure is not null)
        {
            Log.ClosedWithError(_logger, _keyText, held.Generation, failure.Message);
            throw new ImageException(SectorError.Failed, $"image '{_key}': writes that were not flushed may be lost: {failure.Message}");
        }
        Log.Closed(_logger, _keyText, held.Generation);
    }

    private void EnsureInside(HeldImage held, long offset, long bytes)
    {
        if (offset < 0 || bytes < 0 || offset > held.Image.VirtualBytes - bytes)
            throw new ImageException(SectorError.InvalidArgument, $"image '{_key}': {bytes} bytes at {offset} are not inside the disk");
    }

    private ImageFile ExistingFile()
    {
        ImageFile file = _pools.Find(_key);
        var found = new FileInfo(file.Path);
        if (!found.Exists)
            throw new ImageException(SectorError.NotFound, $"image '{_key}' does not exist");
        // A pipe or a device would make the open wait; all of these have no length.
        return found.Length > 0 ? file : throw new ImageException(SectorError.InvalidArgument, $"image '{_key}': its file is empty");
    }

    private ImageDescription Describe(Header header, long fileBytes) => new()
    {
        Image = _keyText,
        VirtualBytes = header.VirtualBytes,
        FileBytes = fileBytes,
        Version = header.Version,
        ClusterBytes = header.Geometry.ClusterBytes,
        RefcountBits = header.Geometry.RefcountBits,
        BackingFile = header.BackingFile,
        BackingFormat = header.BackingFormat,
        SnapshotCount = header.SnapshotCount,
        IsCorrupt = header.Incompatible.HasFlag(IncompatibleFeatures.Corrupt),
    };

    private SectorBatchResult Refuse(SectorError error, string message) => new()
    {
        Image = _keyText,
        Generation = _held?.Generation ?? Guid.Empty,
        Refusal = error,
        Message = message,
    };

    private Task<bool> InOrderAsync(Func<Task> operation) => DescribingErrorsAsync(async () =>
    {
        await _operations.RunAsync(operation);
        return true;
    });

    private async Task<T> DescribingErrorsAsync<T>(Func<Task<T>> call)
    {
        try
        {
            return await call();
        }
        catch (Exception e) when (e is IOException or InvariantException or UnauthorizedAccessException or ArgumentException)
        {
            throw ImageErrors.Describe(_key, e);
        }
    }
}
