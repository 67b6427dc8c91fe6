using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Grains;

/// <content>
/// Snapshots that clients read while the disk goes on. A view reads the file by itself, in turns of its own: what a snapshot
/// consists of never changes. It ends before its snapshot is deleted, and before the image is let go of, since others could
/// delete it then.
/// </content>
public sealed partial class ImageGrain
{
    /// <summary>The views of the present opening, by the ids of their snapshots. Changed in the queue only.</summary>
    private readonly Dictionary<string, HeldImage> _views = [];

    /// <summary>What a batch is for: the image or a view of it; null when its opening has ended.</summary>
    private HeldImage? FindOpening(Guid generation)
    {
        if (_held is null || _held.Generation == generation)
            return _held;
        foreach (HeldImage view in _views.Values)
        {
            if (view.Generation == generation)
                return view;
        }
        return null;
    }

    /// <summary>A view of a snapshot, opened when there is none yet.</summary>
    private async Task<HeldImage> HoldSnapshotAsync(string idOrName)
    {
        HeldImage? view = null;
        while (view is null)
        {
            HeldImage held = await HoldAsync(forWriting: false);
            await _operations.RunAsync(async () => view = _held == held ? await FindOrOpenViewAsync(held, idOrName) : null);
        }
        return view;
    }

    private async Task<HeldImage> FindOrOpenViewAsync(HeldImage held, string idOrName)
    {
        string id = (await FindSnapshotAsync(held, idOrName)).Id;
        if (_views.TryGetValue(id, out HeldImage? view))
            return view;
        var options = new Qcow2OpenOptions
        {
            Access = ImageAccess.ReadShared,
            Snapshot = new SnapshotSelector { Id = id },
            L2CacheBytes = _options.L2CacheBytes,
            RefcountCacheBytes = _options.RefcountCacheBytes,
        };
        // Alone: the header and the table of snapshots must not move while the view reads them.
        await held.Disk.Turns.RunAsync(() => held.Image.RunSettledAsync(
            async file => view = await HeldImage.OpenAsync(_keyText, file.Name, options)));
        _views.Add(id, view!);
        _openImages.Add(view!.Generation, view.Disk);
        Log.Opened(_logger, $"{_keyText}@{id}", view.Generation, "reading");
        return view;
    }

    private static Task<SnapshotEntry> FindSnapshotAsync(HeldImage held, string idOrName) =>
        held.Disk.Turns.RunAsync(() => held.Image.FindSnapshotAsync(idOrName));

    /// <summary>Closes a view, if there is one. What comes for it from then on is refused.</summary>
    private async Task EndViewAsync(string id)
    {
        if (!_views.Remove(id, out HeldImage? view))
            return;
        try
        {
            await view.Disk.Turns.RunAsync(view.Disk.CloseAsync);
        }
        catch (IOException)
        {
            // Nothing was written by it that could be lost.
        }
        _openImages.Remove(view.Generation, withoutError: true);
        Log.Closed(_logger, $"{_keyText}@{id}", view.Generation);
    }

    private async Task EndViewsAsync()
    {
        foreach (string id in _views.Keys.ToArray())
            await EndViewAsync(id);
    }
}
