using OrleansDisk.Abstractions;

namespace OrleansDisk.Grains.Tests.Fixtures;

/// <summary>Stands before a grain and passes all calls on, but those that a test has its own will with.</summary>
/// <param name="grain">The grain, or null: what is passed on fails.</param>
internal class PassingGrain(IImageGrain? grain) : IImageGrain
{
    private IImageGrain Grain => grain ?? throw new NotSupportedException();

    public virtual Task<OpenedImage> OpenAsync(OpenImage how) => Grain.OpenAsync(how);

    public virtual ValueTask<SectorBatchResult> SubmitAsync(SectorBatch batch) => Grain.SubmitAsync(batch);

    public Task CreateAsync(CreateImage what) => Grain.CreateAsync(what);

    public Task<ImageDescription> DescribeAsync() => Grain.DescribeAsync();

    public Task ResizeAsync(long virtualBytes, bool mayShrink) => Grain.ResizeAsync(virtualBytes, mayShrink);

    public Task<ImageSnapshot> CreateSnapshotAsync(string name) => Grain.CreateSnapshotAsync(name);

    public Task ApplySnapshotAsync(string idOrName) => Grain.ApplySnapshotAsync(idOrName);

    public Task DeleteSnapshotAsync(string idOrName) => Grain.DeleteSnapshotAsync(idOrName);

    public Task<ReadOnlyMemory<ImageSnapshot>> ListSnapshotsAsync() => Grain.ListSnapshotsAsync();

    public Task<ReadOnlyMemory<ImageBitmap>> ListBitmapsAsync() => Grain.ListBitmapsAsync();

    public Task AddBitmapAsync(AddBitmap what) => Grain.AddBitmapAsync(what);

    public Task RemoveBitmapAsync(string name) => Grain.RemoveBitmapAsync(name);

    public Task ClearBitmapAsync(string name) => Grain.ClearBitmapAsync(name);

    public Task EnableBitmapAsync(string name, bool isEnabled) => Grain.EnableBitmapAsync(name, isEnabled);

    public Task MergeBitmapAsync(string name, string sourceName) => Grain.MergeBitmapAsync(name, sourceName);

    public Task<ReadOnlyMemory<DirtyExtent>> GetDirtyExtentsAsync(string bitmap, long offset, long bytes) =>
        Grain.GetDirtyExtentsAsync(bitmap, offset, bytes);

    public Task<ImageCheckResult> CheckAsync() => Grain.CheckAsync();

    public Task<ReadOnlyMemory<SectorExtent>> MapAsync(long offset, long bytes) => Grain.MapAsync(offset, bytes);

    public virtual ValueTask<Guid> KeepOpenAsync() => Grain.KeepOpenAsync();

    public Task CloseAsync() => Grain.CloseAsync();
}
