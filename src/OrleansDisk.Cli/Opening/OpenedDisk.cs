using OrleansDisk.Cli.Opening.Blkdebug;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Data;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Cli.Opening;

/// <summary>An open disk with what was opened for it. It is used and closed in the turns in which it was opened.</summary>
internal sealed class OpenedDisk : IAsyncDisposable
{
    /// <summary>What is read.</summary>
    public required IDiskSource Source { get; init; }

    /// <summary>The same disk for changing it, or null when it is only read.</summary>
    public IWritableDisk? Writable => Source is IWritableDisk { IsReadOnly: false } disk ? disk : null;

    /// <summary>The image on top of the chain, whatever drivers lie above it; null when there is none.</summary>
    public Qcow2Image? Image { get; init; }

    public required DiskRequest Request { get; init; }

    /// <summary>The rules of a blkdebug driver, or null.</summary>
    public BlkdebugRules? Blkdebug { get; init; }

    /// <summary>The password that opened the image on top of the chain; empty when it needs none.</summary>
    public byte[] Password { get; init; } = [];

    /// <summary>The files of the images of the chain, by their names.</summary>
    public required Dictionary<string, IBlockFile> Files { private get; init; }

    /// <summary>Puts every change on stable storage, unless the cache mode says that nobody cares.</summary>
    public async ValueTask FlushAsync()
    {
        if (Request.Cache.NoFlush || Writable is not { } disk)
            return;
        if (Blkdebug is not null)
        {
            await Blkdebug.TriggerAsync(BlkdebugEvents.FlushToOs);
            await Blkdebug.TriggerAsync(BlkdebugEvents.FlushToDisk);
        }
        await disk.FlushAsync();
    }

    /// <summary>The layers of the chain, from the top, with the files in which to look for holes.</summary>
    public async Task<IReadOnlyList<MapLayer>> LayersAsync()
    {
        IReadOnlyList<MapLayer> layers = MapOperation.LayersOf(Source);
        var found = new List<MapLayer>();
        foreach (MapLayer layer in layers)
        {
            bool mayHaveHoles = layer.Source is Qcow2Image image && Files.TryGetValue(image.FileName, out IBlockFile? file)
                && FileSpace.AllocatedBytes(file.Name) is { } allocated
                && await PreallocationProbe.IsPreallocatedAsync(file, image.Header, allocated);
            found.Add(mayHaveHoles ? layer with { HoleFile = Files[layer.Source.FileName] } : layer);
        }
        return found;
    }

    /// <summary>Writes everything back and lets go of all files.</summary>
    public ValueTask DisposeAsync() => Source.DisposeAsync();
}
