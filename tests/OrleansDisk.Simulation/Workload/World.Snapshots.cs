using OrleansDisk.Qcow2;
using OrleansDisk.Simulation.Crash;
using OrleansDisk.Simulation.Model;

namespace OrleansDisk.Simulation.Workload;

/// <content>Internal snapshots.</content>
internal sealed partial class World
{
    /// <summary>Refcounts of up to two bits may be full.</summary>
    private const int LastFullOrder = 1;

    /// <summary>Whether a snapshot was taken, deleted or applied: what the start's snapshots hold may be written from then on.</summary>
    public bool HasChangedSnapshots { get; set; }

    public SnapshotModel Snapshots => Model.Snapshots;

    public async Task CreateSnapshotAsync(string name)
    {
        if (!CanChangeSnapshots(out bool isGrowing) || isGrowing || !Snapshots.TryBegin(name))
            return;
        long begin = Model.BeginFlush();
        long[] from = Model.BeginRead(0, VirtualBytes);
        bool isFull = false;
        var what = new SnapshotDescription { Name = name, Date = DateTimeOffset.UnixEpoch };
        bool succeeded = await TryChangeAsync(2 * VirtualBytes, async image =>
            isFull = await IsFullAsync(() => image.CreateSnapshotAsync(what)));
        if (isFull || (!succeeded && !Image.HasFailed))
            Snapshots.Refused(name);
        if (isFull || !succeeded)
            return;
        Model.EndFlush(begin);
        byte[] disk = (await ReadSnapshotsAsync())[name];
        Model.EndRead(0, disk.AsSpan(0, Math.Min(disk.Length, from.Length * SectorContent.Bytes)), from);
        for (int sector = 0; sector < Model.SectorCount && (sector + 1) * SectorContent.Bytes <= disk.Length; sector++)
            Model.Remember(disk.AsSpan(sector * SectorContent.Bytes, SectorContent.Bytes));
        Snapshots.Keep(name, disk);
    }

    public async Task DeleteSnapshotAsync(string name)
    {
        if (!CanChangeSnapshots(out _) || !Snapshots.TryBeginDelete(name))
            return;
        bool succeeded = await TryChangeAsync(2 * VirtualBytes, image => new ValueTask(image.DeleteSnapshotAsync(name)));
        if (succeeded || !Image.HasFailed)
            Snapshots.EndDelete(name, hasGone: succeeded);
    }

    public async Task ApplySnapshotAsync(string name)
    {
        if (!CanChangeSnapshots(out _) || Snapshots.Find(name) is not { } contents || contents.Count != Model.SectorCount
            || Model.Bitmaps.IsUnsure || Model.Bitmaps.Names.Count > 0)
        {
            return;
        }
        DiskModel.Change change = Model.BeginApply(contents);
        bool isFull = false;
        bool succeeded = await TryChangeAsync(2 * VirtualBytes, async image =>
            isFull = await IsFullAsync(() => image.ApplySnapshotAsync(name))); // a crash may have left references too many
        if (succeeded && !isFull)
            change.Succeed(isDurable: true);
        else
            change.EndUncertain();
    }

    /// <summary>The snapshots as all programs see them in the file.</summary>
    private Task<IReadOnlyDictionary<string, byte[]>> ReadSnapshotsAsync() =>
        SnapshotReader.ReadAsync(() => CrashView.Of(StartImage.Name, Disk.Visible), Options() with { OpenFile = Limits.OpenBacking });

    private async Task<bool> IsFullAsync(Func<Task> act)
    {
        try
        {
            await act();
            return false;
        }
        catch (SnapshotException e) when (e.Error == SnapshotError.RefcountsFull && Image.Header.Geometry.RefcountOrder <= LastFullOrder)
        {
            return true;
        }
    }

    private bool CanChangeSnapshots(out bool isGrowing)
    {
        isGrowing = Model.ResizingTo is not null;
        bool can = shape.DataFile == DataFileKind.None;
        HasChangedSnapshots |= can;
        return can;
    }
}
