using OrleansDisk.Abstractions;

namespace OrleansDisk.Client;

/// <summary>
/// The disks of an OrleansDisk cluster, by the keys of their images: <c>POOL/IMAGE</c>. Every call fails with an
/// <see cref="ImageException"/> that says why.
/// </summary>
/// <param name="grains">The way to the grains: a cluster client, or a silo's own factory.</param>
/// <param name="options">How to send; null for the defaults.</param>
public sealed class DiskClient(IGrainFactory grains, DiskClientOptions? options = null)
{
    private readonly DiskClientOptions _options = options ?? new DiskClientOptions();

    /// <summary>Opens a disk for reading and writing, or for reading only.</summary>
    public async Task<Disk> OpenAsync(string image, bool readOnly = false)
    {
        _options.Check();
        return new Disk(await ImageConnection.OpenAsync(grains, image, readOnly, _options.TimeProvider), readOnly, _options);
    }

    /// <summary>Opens an internal snapshot as a disk that can be read, while the image's own disk goes on. It ends when the snapshot is deleted.</summary>
    /// <param name="image">Key of the image.</param>
    /// <param name="idOrName">The snapshot's id or, if none has that id, its name.</param>
    public async Task<Disk> OpenSnapshotAsync(string image, string idOrName)
    {
        _options.Check();
        return new Disk(await ImageConnection.OpenAsync(grains, image, readOnly: true, _options.TimeProvider, idOrName), readOnly: true, _options);
    }

    /// <inheritdoc cref="IImageGrain.CreateAsync"/>
    public Task CreateAsync(string image, CreateImage what) => Grain(image).CreateAsync(what);

    /// <inheritdoc cref="IImageGrain.DescribeAsync"/>
    public Task<ImageDescription> DescribeAsync(string image) => Grain(image).DescribeAsync();

    /// <inheritdoc cref="IImageGrain.ResizeAsync"/>
    public Task ResizeAsync(string image, long virtualBytes, bool mayShrink = false) => Grain(image).ResizeAsync(virtualBytes, mayShrink);

    /// <inheritdoc cref="IImageGrain.CreateSnapshotAsync"/>
    public Task<ImageSnapshot> CreateSnapshotAsync(string image, string name) => Grain(image).CreateSnapshotAsync(name);

    /// <inheritdoc cref="IImageGrain.ApplySnapshotAsync"/>
    public Task ApplySnapshotAsync(string image, string idOrName) => Grain(image).ApplySnapshotAsync(idOrName);

    /// <inheritdoc cref="IImageGrain.DeleteSnapshotAsync"/>
    public Task DeleteSnapshotAsync(string image, string idOrName) => Grain(image).DeleteSnapshotAsync(idOrName);

    /// <inheritdoc cref="IImageGrain.ListSnapshotsAsync"/>
    public Task<ReadOnlyMemory<ImageSnapshot>> ListSnapshotsAsync(string image) => Grain(image).ListSnapshotsAsync();

    /// <inheritdoc cref="IImageGrain.ListBitmapsAsync"/>
    public Task<ReadOnlyMemory<ImageBitmap>> ListBitmapsAsync(string image) => Grain(image).ListBitmapsAsync();

    /// <inheritdoc cref="IImageGrain.AddBitmapAsync"/>
    public Task AddBitmapAsync(string image, AddBitmap what) => Grain(image).AddBitmapAsync(what);

    /// <inheritdoc cref="IImageGrain.RemoveBitmapAsync"/>
    public Task RemoveBitmapAsync(string image, string name) => Grain(image).RemoveBitmapAsync(name);

    /// <inheritdoc cref="IImageGrain.ClearBitmapAsync"/>
    public Task ClearBitmapAsync(string image, string name) => Grain(image).ClearBitmapAsync(name);

    /// <summary>Lets changes set bits of a bitmap from now on.</summary>
    public Task EnableBitmapAsync(string image, string name) => Grain(image).EnableBitmapAsync(name, isEnabled: true);

    /// <summary>Keeps a bitmap as it is, whatever changes. From then on a crash does not make it inconsistent.</summary>
    public Task DisableBitmapAsync(string image, string name) => Grain(image).EnableBitmapAsync(name, isEnabled: false);

    /// <inheritdoc cref="IImageGrain.MergeBitmapAsync"/>
    public Task MergeBitmapAsync(string image, string name, string sourceName) => Grain(image).MergeBitmapAsync(name, sourceName);

    /// <inheritdoc cref="IImageGrain.GetDirtyExtentsAsync"/>
    public Task<ReadOnlyMemory<DirtyExtent>> GetDirtyExtentsAsync(string image, string bitmap, long offset, long bytes) =>
        Grain(image).GetDirtyExtentsAsync(bitmap, offset, bytes);

    /// <inheritdoc cref="IImageGrain.CheckAsync"/>
    public Task<ImageCheckResult> CheckAsync(string image) => Grain(image).CheckAsync();

    /// <inheritdoc cref="IImageGrain.MapAsync"/>
    public Task<ReadOnlyMemory<SectorExtent>> MapAsync(string image, long offset, long bytes) =>
        Grain(image).MapAsync(offset, bytes);

    /// <inheritdoc cref="IImageGrain.CloseAsync"/>
    public Task CloseAsync(string image) => Grain(image).CloseAsync();

    private IImageGrain Grain(string image) => grains.GetGrain<IImageGrain>(ImageKey.Parse(image).ToString());
}
