using OrleansDisk.Abstractions;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Bitmaps;

namespace OrleansDisk.Grains;

/// <content>Persistent dirty bitmaps.</content>
public sealed partial class ImageGrain
{
    public Task<ReadOnlyMemory<ImageBitmap>> ListBitmapsAsync() => DescribingErrorsAsync(async () =>
    {
        HeldImage held = await HoldAsync(forWriting: false);
        IReadOnlyList<BitmapDescription> bitmaps = await held.Disk.Turns.RunAsync(() => held.Image.ListBitmapsAsync().AsTask());
        return new ReadOnlyMemory<ImageBitmap>([.. bitmaps.Select(Describe)]);
    });

    public Task AddBitmapAsync(AddBitmap what) => ChangeAsync(image => image.AddBitmapAsync(what.Name, what.GranularityBytes, !what.IsDisabled));

    public Task RemoveBitmapAsync(string name) => ChangeAsync(image => image.RemoveBitmapAsync(name));

    public Task ClearBitmapAsync(string name) => ChangeAsync(image => image.ClearBitmapAsync(name));

    public Task EnableBitmapAsync(string name, bool isEnabled) =>
        ChangeAsync(image => isEnabled ? image.EnableBitmapAsync(name) : image.DisableBitmapAsync(name));

    public Task MergeBitmapAsync(string name, string sourceName) => ChangeAsync(image => image.MergeBitmapAsync(name, sourceName));

    public Task<ReadOnlyMemory<DirtyExtent>> GetDirtyExtentsAsync(string bitmap, long offset, long bytes) => DescribingErrorsAsync(async () =>
    {
        HeldImage held = await HoldAsync(forWriting: false);
        EnsureInside(held, offset, bytes);
        return await held.Disk.Turns.RunAsync(() => FindDirtyAsync(held.Image, bitmap, offset, bytes));
    });

    private static async Task<ReadOnlyMemory<DirtyExtent>> FindDirtyAsync(Qcow2Image image, string bitmap, long offset, long bytes)
    {
        var extents = new List<DirtyExtent>();
        for (long at = offset; at < offset + bytes && extents.Count < SectorBatch.MaxExtents;)
        {
            BitmapExtent extent = await image.GetBitmapExtentAsync(bitmap, at, offset + bytes - at);
            extents.Add(new DirtyExtent(extent.Bytes, extent.IsDirty));
            at += extent.Bytes;
        }
        return new ReadOnlyMemory<DirtyExtent>([.. extents]);
    }

    private static ImageBitmap Describe(BitmapDescription bitmap) => new()
    {
        Name = bitmap.Name,
        GranularityBytes = bitmap.GranularityBytes,
        IsEnabled = bitmap.IsEnabled,
        IsInconsistent = bitmap.IsInconsistent,
    };
}
