using OrleansDisk.Qcow2.Bitmaps;
using OrleansDisk.Qcow2.Concurrency;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Qcow2;

/// <content>Persistent dirty bitmaps (qcow2 specification, "Bitmaps").</content>
public sealed partial class Qcow2Image
{
    private readonly ImageBitmaps _bitmaps;

    /// <summary>The bitmaps, in the order of the directory.</summary>
    /// <exception cref="Qcow2FormatException">The directory breaks the specification.</exception>
    public async ValueTask<IReadOnlyList<BitmapDescription>> ListBitmapsAsync()
    {
        IReadOnlyList<BitmapDescription> descriptions = [];
        await RunAsync(async () =>
        {
            await _bitmaps.LoadAsync();
            descriptions = _bitmaps.Describe();
        });
        return descriptions;
    }

    /// <summary>Whether the range that starts at an offset is dirty, and how far that goes.</summary>
    /// <param name="name">A bitmap that is consistent.</param>
    /// <param name="offset">First byte.</param>
    /// <param name="bytes">How far to look, at least a byte; inside the disk.</param>
    /// <exception cref="BitmapException">There is no such bitmap, or its bits mean nothing.</exception>
    public async ValueTask<BitmapExtent> GetBitmapExtentAsync(string name, long offset, long bytes)
    {
        ThrowIfOutside(offset, bytes);
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(bytes);
        BitmapExtent extent = default;
        await RunAsync(async () =>
        {
            await _bitmaps.LoadAsync();
            extent = await _bitmaps.FindExtentAsync(_bitmaps.FindConsistent(name), offset, bytes);
        });
        return extent;
    }

    /// <summary>Makes a bitmap without a bit set.</summary>
    /// <param name="name">Its name, of 1 to 1023 bytes of UTF-8.</param>
    /// <param name="granularityBytes">
    /// How many bytes of the disk one bit stands for: a power of two from 512 to 2 GiB. Null: the cluster size, but 4 KiB at
    /// least and 64 KiB at most.
    /// </param>
    /// <param name="isEnabled">Whether it tracks changes from now on.</param>
    /// <exception cref="BitmapException">There is one of that name, or the image can't have it.</exception>
    public Task AddBitmapAsync(string name, long? granularityBytes = null, bool isEnabled = true) =>
        ChangeBitmapsAsync(() => _bitmaps.AddAsync(name, granularityBytes, isEnabled));

    /// <summary>Removes a bitmap, one that is inconsistent too.</summary>
    /// <exception cref="BitmapException">There is no such bitmap.</exception>
    public Task RemoveBitmapAsync(string name) => ChangeBitmapsAsync(() => _bitmaps.RemoveAsync(name));

    /// <summary>Clears all bits of a bitmap.</summary>
    /// <exception cref="BitmapException">There is no such bitmap, or it is inconsistent.</exception>
    public Task ClearBitmapAsync(string name) => ChangeBitmapsAsync(() => _bitmaps.ClearAsync(name));

    /// <summary>Lets changes of the disk set bits of a bitmap from now on.</summary>
    /// <exception cref="BitmapException">There is no such bitmap, or it is inconsistent.</exception>
    public Task EnableBitmapAsync(string name) => ChangeBitmapsAsync(() => _bitmaps.EnableAsync(name, isEnabled: true));

    /// <summary>Keeps a bitmap as it is, whatever changes. From then on a crash does not make it inconsistent.</summary>
    /// <exception cref="BitmapException">There is no such bitmap, or it is inconsistent.</exception>
    public Task DisableBitmapAsync(string name) => ChangeBitmapsAsync(() => _bitmaps.EnableAsync(name, isEnabled: false));

    /// <summary>Sets in a bitmap what is set in another one.</summary>
    /// <param name="name">The bitmap that gets the bits.</param>
    /// <param name="sourceName">The bitmap that is read.</param>
    /// <param name="source">The image that has it, whose size is the same; nobody changes it meanwhile. Null: this one.</param>
    /// <exception cref="BitmapException">There is no such bitmap, one is inconsistent, or the sizes differ.</exception>
    public Task MergeBitmapAsync(string name, string sourceName, Qcow2Image? source = null) => ChangeBitmapsAsync(async () =>
    {
        ImageBitmaps sourceBitmaps = source?._bitmaps ?? _bitmaps;
        await sourceBitmaps.LoadAsync();
        await _bitmaps.MergeAsync(name, sourceBitmaps, sourceName);
    });

    /// <summary>Makes bitmaps that are what those of another image are; all of them, or none after an error.</summary>
    /// <param name="source">The image that has them, whose disk has the same size; nobody changes it meanwhile.</param>
    /// <param name="names">Which ones: they are consistent, and there are none of these names here.</param>
    /// <exception cref="BitmapException">A bitmap is not as it must be, or can't be had here.</exception>
    public Task CopyBitmapsAsync(Qcow2Image source, IReadOnlyList<string> names) => ChangeBitmapsAsync(async () =>
    {
        await source._bitmaps.LoadAsync();
        await _bitmaps.CopyAsync(source._bitmaps, names);
    });

    /// <summary>The last step of an opening: from here on the disk may change, and the bitmaps are in use.</summary>
    private static async Task<Qcow2Image> StartAsync(Qcow2Image image)
    {
        if (image.IsReadOnly)
            return image;
        try
        {
            await image.GuardAsync(() => new ValueTask(image._metadata.ClearUnknownFeaturesAsync()));
            await image.GuardAsync(() => new ValueTask(image._bitmaps.StartAsync()));
            return image;
        }
        catch when (image.Backing is not null)
        {
            await image.Backing.DisposeAsync();
            throw;
        }
    }

    /// <summary>The last write-back. Bitmaps that can't be stored stay in use, and the rest goes on.</summary>
    private async ValueTask StopAsync()
    {
        try
        {
            await _bitmaps.StopAsync();
        }
        catch (Exception e) when (!HasFailed && e is NoSpaceException or BlockFileException { IsNoSpace: true })
        {
            throw new NoSpaceException($"The dirty bitmaps of '{FileName}' could not be stored: {e.Message}. All data is written; the bitmaps "
                + "stay marked as in use, and count for nothing: make room, remove them, and begin new ones with a full backup", e);
        }
        finally
        {
            await SettleAndMarkCleanAsync();
        }
    }

    /// <summary>Changes the disk's size, and the bitmaps with it. The caller is alone.</summary>
    private async ValueTask ResizingBitmapsAsync(long virtualBytes, Func<Task> resize)
    {
        await _bitmaps.BeginResizeAsync(virtualBytes);
        try
        {
            await resize();
        }
        finally
        {
            if (!HasFailed)
                await _bitmaps.EndResizeAsync();
        }
    }

    private async Task ChangeBitmapsAsync(Func<Task> change)
    {
        using RequestGate.Ticket ticket = await _metadata.Gate.EnterExclusiveAsync();
        await GuardAsync(() =>
        {
            ThrowIfUnwritable(0, 0);
            return new ValueTask(change());
        });
    }
}
