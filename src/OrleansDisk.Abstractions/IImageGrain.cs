namespace OrleansDisk.Abstractions;

/// <summary>
/// The one owner of an image; its key is the image's, <c>POOL/IMAGE</c> (<see cref="ImageKey"/>). Calls other than
/// <see cref="SubmitAsync"/> fail with an <see cref="ImageException"/>.
/// </summary>
[Alias("OrleansDisk.IImageGrain")]
public interface IImageGrain : IGrainWithStringKey
{
    /// <summary>Opens the image unless it is open, with the locks that keep every other program from writing to it.</summary>
    [Alias("Open")]
    Task<OpenedImage> OpenAsync(OpenImage how);

    /// <summary>
    /// Runs the requests of a batch against the opening that it names. Ends when all of them have completed.
    /// The time limit is for a host that vanished; a request itself may take as long as its disk takes.
    /// </summary>
    [Alias("Submit"), ResponseTimeout("00:10:00")]
    ValueTask<SectorBatchResult> SubmitAsync([Immutable] SectorBatch batch);

    /// <summary>Makes the image. It must not exist.</summary>
    [Alias("Create"), ResponseTimeout("01:00:00")]
    Task CreateAsync(CreateImage what);

    /// <summary>Describes the image, open or not.</summary>
    [Alias("Describe")]
    Task<ImageDescription> DescribeAsync();

    /// <summary>
    /// Makes the disk larger or smaller; what is new reads as zeros. Requests wait meanwhile. Clients see the size when they
    /// open the image again; until then, what lies behind the end of a smaller disk is refused.
    /// </summary>
    /// <param name="virtualBytes">The new size in bytes, rounded up to whole sectors of 512 bytes.</param>
    /// <param name="mayShrink">Whether it may be smaller: what is cut off is gone.</param>
    [Alias("Resize"), ResponseTimeout("00:10:00")]
    Task ResizeAsync(long virtualBytes, bool mayShrink);

    /// <summary>
    /// Takes an internal snapshot, which is on stable storage when this ends, with all that was written before. Requests
    /// wait meanwhile; they need not be flushed first.
    /// </summary>
    /// <param name="name">Its name; several snapshots may have one.</param>
    [Alias("CreateSnapshot"), ResponseTimeout("01:00:00")]
    Task<ImageSnapshot> CreateSnapshotAsync(string name);

    /// <summary>
    /// Makes the disk what it was when a snapshot was taken, with the size that it had: what it holds now is lost. Whoever
    /// uses the disk sees it change; it is for disks that nobody has mounted. Clients see the size when they open the image again.
    /// </summary>
    /// <param name="idOrName">The snapshot's id or, if none has that id, its name.</param>
    [Alias("ApplySnapshot"), ResponseTimeout("01:00:00")]
    Task ApplySnapshotAsync(string idOrName);

    /// <summary>Deletes an internal snapshot. Requests wait meanwhile; whoever reads the snapshot is refused from then on.</summary>
    /// <param name="idOrName">The snapshot's id or, if none has that id, its name.</param>
    [Alias("DeleteSnapshot"), ResponseTimeout("01:00:00")]
    Task DeleteSnapshotAsync(string idOrName);

    /// <summary>The internal snapshots of the image, open or not, in their order.</summary>
    [Alias("ListSnapshots")]
    Task<ReadOnlyMemory<ImageSnapshot>> ListSnapshotsAsync();

    /// <summary>The persistent dirty bitmaps of the image, open or not, in their order.</summary>
    [Alias("ListBitmaps")]
    Task<ReadOnlyMemory<ImageBitmap>> ListBitmapsAsync();

    /// <summary>Makes a bitmap without a bit set. Every change that completes after this is in it, unless it is disabled.</summary>
    [Alias("AddBitmap"), ResponseTimeout("00:10:00")]
    Task AddBitmapAsync(AddBitmap what);

    /// <summary>Removes a bitmap, one that is inconsistent too.</summary>
    [Alias("RemoveBitmap"), ResponseTimeout("00:10:00")]
    Task RemoveBitmapAsync(string name);

    /// <summary>Clears all bits of a bitmap.</summary>
    [Alias("ClearBitmap"), ResponseTimeout("00:10:00")]
    Task ClearBitmapAsync(string name);

    /// <summary>Lets changes set bits of a bitmap from now on, or keeps it as it is, whatever changes.</summary>
    [Alias("EnableBitmap"), ResponseTimeout("00:10:00")]
    Task EnableBitmapAsync(string name, bool isEnabled);

    /// <summary>Sets in a bitmap what is set in another one of the image.</summary>
    [Alias("MergeBitmap"), ResponseTimeout("00:10:00")]
    Task MergeBitmapAsync(string name, string sourceName);

    /// <summary>What a bitmap says of a range of the disk; may stop after <see cref="SectorBatch.MaxExtents"/> extents.</summary>
    [Alias("GetDirtyExtents"), ResponseTimeout("00:10:00")]
    Task<ReadOnlyMemory<DirtyExtent>> GetDirtyExtentsAsync(string bitmap, long offset, long bytes);

    /// <summary>Checks the image, open or not, without changing it. Requests to an open image go on meanwhile.</summary>
    [Alias("Check"), ResponseTimeout("10:00:00")]
    Task<ImageCheckResult> CheckAsync();

    /// <summary>What is where in a range of the disk; may stop after <see cref="SectorBatch.MaxExtents"/> extents.</summary>
    [Alias("Map"), ResponseTimeout("00:10:00")]
    Task<ReadOnlyMemory<SectorExtent>> MapAsync(long offset, long bytes);

    /// <summary>Counts as use, so that an image with quiet clients is not closed for being idle.</summary>
    /// <returns>The opening of the image; empty when it is not open.</returns>
    [Alias("KeepOpen")]
    ValueTask<Guid> KeepOpenAsync();

    /// <summary>
    /// Waits for what is under way, writes everything back, and lets go of the file. Clients that go on using the
    /// image open it again.
    /// </summary>
    /// <exception cref="ImageException">The last write-back failed; the file is let go of all the same.</exception>
    [Alias("Close"), ResponseTimeout("00:10:00")]
    Task CloseAsync();
}
