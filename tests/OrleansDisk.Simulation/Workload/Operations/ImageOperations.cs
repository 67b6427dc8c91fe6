using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Check;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Simulation.Host;

namespace OrleansDisk.Simulation.Workload.Operations;

/// <summary>The disk grows; what is new reads as zeros, even where the backing file is longer or the disk was larger before.</summary>
internal sealed record GrowOperation(int Sectors, Preallocation Preallocation) : IOperation
{
    private const int MaxSectors = 4096;

    public static GrowOperation Draw(OperationDraw draw) => new(
        1 + draw.Random.Next(draw.OneIn(3) ? draw.Shape.SectorCount : 2 * draw.Shape.ClusterSectorCount),
        draw.OneIn(3) ? (Preallocation)draw.Random.Next(4) : Preallocation.Off);

    public async Task RunAsync(World world)
    {
        bool isRefused = (world.Version == 2 && world.Snapshots.Any) || world.Model.Bitmaps.KeepsSize;
        int sectors = world.Model.SectorCount + Sectors;
        if (world.Model.ResizingTo is not null || isRefused || sectors > Math.Max(MaxSectors, 2 * world.Shape.SectorCount))
            return;
        world.Model.BeginResize(sectors);
        if (await world.TryChangeAsync(Sectors * 512L, image => new ValueTask(image.ResizeAsync(sectors * 512L, Preallocation))))
            world.Model.EndResize(sectors);
        else if (!world.Image.HasFailed)
            world.Model.FailResize();
    }
}

/// <summary>The disk becomes smaller, while nobody uses what is cut off.</summary>
internal sealed record ShrinkOperation(int Sectors) : IOperation
{
    public static ShrinkOperation Draw(OperationDraw draw) =>
        new(1 + draw.Random.Next(draw.OneIn(2) ? draw.Shape.SectorCount : 2 * draw.Shape.ClusterSectorCount));

    public Timing Timing => Timing.Alone;

    public async Task RunAsync(World world)
    {
        bool isRefused = (world.Version == 2 && world.Snapshots.Any) || world.Model.Bitmaps.KeepsSize;
        int sectors = world.Model.SectorCount - Sectors;
        if (world.Model.ResizingTo is not null || isRefused || sectors < 1)
            return;
        world.Model.BeginResize(sectors);
        bool succeeded = await world.TryChangeAsync(Sectors * 512L, image => new ValueTask(image.ResizeAsync(sectors * 512L)));
        if (world.Image.HasFailed)
            return; // the disk has the one size or the other
        // The smaller size is on stable storage before anything is given back: what fails after that changes nothing of it.
        if (succeeded || world.Image.VirtualBytes == sectors * 512L)
            world.Model.EndResize(sectors);
        else
            world.Model.FailResize();
    }
}

/// <summary>What whoever holds an image open does from time to time: tables that nobody uses leave memory, freed space goes back.</summary>
internal sealed record UpkeepOperation : IOperation
{
    public Task RunAsync(World world) => world.TryAsync(async image =>
    {
        await image.DropUnusedTablesAsync();
        await image.ReclaimAsync();
    });
}

/// <summary>The image is checked while others wait: nothing leaks.</summary>
internal sealed record SettledCheckOperation : IOperation
{
    public async Task RunAsync(World world)
    {
        long begin = world.Model.BeginFlush();
        bool succeeded = await world.TryAsync(image => new ValueTask(image.RunSettledAsync(async file =>
        {
            World.RefuseCorruption(await ImageCheck.RunAsync(file, new CheckOptions { MaxKeptFindings = 5 }));
            world.NoteSettled();
        })));
        if (succeeded)
            world.Model.EndFlush(begin);
    }
}

/// <summary>The image is checked while others go on: at its moment nothing was wrong, leaks included.</summary>
internal sealed record CheckInUseOperation : IOperation
{
    public async Task RunAsync(World world)
    {
        long begin = world.Model.BeginFlush();
        bool succeeded = await world.TryAsync(async image =>
        {
            CheckReport report = await image.CheckAsync(new CheckOptions { MaxKeptFindings = 5 });
            World.RefuseCorruption(report);
            world.RefuseLeaks(report);
        });
        if (succeeded)
            world.Model.EndFlush(begin);
    }
}

/// <summary>The image is closed in order and opened again, perhaps by someone who only reads in between.</summary>
internal sealed record ReopenOperation(bool ReadOnlyBetween) : IOperation
{
    public static ReopenOperation Draw(OperationDraw draw) => new(draw.OneIn(2));

    public Timing Timing => Timing.Alone;

    public async Task RunAsync(World world)
    {
        long begin = world.Model.BeginFlush();
        if (await world.TryAsync(image => new ValueTask(image.CloseAsync())))
            world.Model.EndFlush(begin);
        else if (world.Image.HasFailed)
            return;
        else
            world.Model.Bitmaps.IsUnsure = true; // they could not be stored; the disk is whole
        world.NoteSettled();
        if (world.Disk.Unflushed.Count > 0)
            throw new SimulationFailure("close", $"{world.Disk.Unflushed.Count} writes are not on stable storage when the image is closed");
        PoisonFreeSpace(world.Disk, world.CheckFile().Header, world.Shape.DataFile == DataFileKind.None
            ? world.Disk.Visible.Length : world.Disk.FirstFileBytes);
        if (ReadOnlyBetween)
            await world.ReadOnlyVisitAsync();
        await world.OpenAsync();
        await world.JudgeBitmapsAsync();
        await world.ReadAsync(0, (int)world.VirtualBytes);
    }

    /// <summary>What no refcount counts may hold anything; now it holds what nobody may ever see.</summary>
    private static void PoisonFreeSpace(SimulatedDisk disk, Header header, long fileBytes)
    {
        var free = new List<long>();
        ClusterGeometry geometry = header.Geometry;
        byte[] entry = new byte[sizeof(ulong)];
        byte[] block = new byte[geometry.ClusterBytes];
        for (long cluster = 0; (cluster + 1) << geometry.ClusterBits <= fileBytes; cluster++)
        {
            int inBlock = geometry.RefcountBlockIndex(new HostCluster(cluster));
            if (inBlock == 0 || cluster == 0)
            {
                disk.Visible.Read(header.RefcountTable.Bytes + (8L * geometry.RefcountTableIndex(new HostCluster(cluster))), entry);
                long at = (long)System.Buffers.Binary.BinaryPrimitives.ReadUInt64BigEndian(entry);
                if (at == 0)
                    block.AsSpan().Clear();
                else
                    disk.Visible.Read(at, block);
            }
            if (RefcountBlock.Get(block, geometry.RefcountOrder, inBlock) == 0)
                free.Add(cluster);
        }
        StartImage.PoisonFreeSpace(disk.Visible, header, free);
        StartImage.PoisonFreeSpace(disk.Durable, header, free);
    }
}

/// <summary>The process dies, or the machine, while others run.</summary>
/// <param name="LosesPower">Whether it is the machine.</param>
/// <param name="AfterTurns">How far the others get before.</param>
internal sealed record CrashOperation(bool LosesPower, int AfterTurns = 0) : IOperation
{
    private const int MaxTurns = 200;

    public static CrashOperation Draw(OperationDraw draw) => new(draw.OneIn(2), draw.Random.Next(draw.OneIn(2) ? MaxTurns : 2));

    public Timing Timing => Timing.Interrupting;

    public async Task RunAsync(World world)
    {
        await world.Host.WaitAsync(AfterTurns);
        if (world.Image.HasFailed)
            await world.RecoverAsync();
        else if (LosesPower)
            await world.LosePowerAsync();
        else
            await world.KillProcessAsync();
    }
}
