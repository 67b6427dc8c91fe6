using OrleansDisk.Abstractions;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Grains;

/// <content>Internal snapshots.</content>
public sealed partial class ImageGrain
{
    public Task<ImageSnapshot> CreateSnapshotAsync(string name) => DescribingErrorsAsync(async () =>
    {
        var what = new SnapshotDescription { Name = name, Date = TimeProvider.System.GetUtcNow() };
        HeldImage held = await HoldForChangeAsync();
        return Describe(await held.Disk.Turns.RunAsync(() => held.Image.CreateSnapshotAsync(what)));
    });

    public Task ApplySnapshotAsync(string idOrName) => ChangeAsync(image => image.ApplySnapshotAsync(idOrName));

    public Task DeleteSnapshotAsync(string idOrName) => DescribingErrorsAsync(async () =>
    {
        bool isDone = false;
        while (!isDone)
        {
            HeldImage held = await HoldForChangeAsync();
            await _operations.RunAsync(async () =>
            {
                if (_held != held)
                    return;
                await EndViewAsync((await FindSnapshotAsync(held, idOrName)).Id);
                await held.Disk.Turns.RunAsync(() => held.Image.DeleteSnapshotAsync(idOrName));
                isDone = true;
            });
        }
        return isDone;
    });

    public Task<ReadOnlyMemory<ImageSnapshot>> ListSnapshotsAsync() => DescribingErrorsAsync(async () =>
    {
        IReadOnlyList<SnapshotEntry> snapshots;
        if (_held is { } held)
        {
            snapshots = await held.Disk.Turns.RunAsync(() => held.Image.ListSnapshotsAsync().AsTask());
        }
        else
        {
            await using var file = LocalBlockFile.Open(ExistingFile().Path, ImageAccess.ReadShared);
            snapshots = await DirectoryReader.ReadSnapshotsAsync(file, await HeaderReader.ReadAsync(file));
        }
        return new ReadOnlyMemory<ImageSnapshot>([.. snapshots.Select(Describe)]);
    });

    private Task<HeldImage> ChangeAsync(Func<Qcow2Image, Task> change) => DescribingErrorsAsync(async () =>
    {
        HeldImage held = await HoldForChangeAsync();
        await held.Disk.Turns.RunAsync(() => change(held.Image));
        return held;
    });

    private static ImageSnapshot Describe(SnapshotEntry snapshot) => new()
    {
        Id = snapshot.Id,
        Name = snapshot.Name,
        Date = snapshot.Date,
        VirtualBytes = snapshot.VirtualBytes,
        VmStateBytes = snapshot.VmStateBytes,
    };
}
