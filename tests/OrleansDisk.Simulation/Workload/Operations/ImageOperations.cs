using OrleansDisk.Qcow2.Check;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Simulation.Host;

namespace OrleansDisk.Simulation.Workload.Operations;

/// <summary>The disk grows; what is new reads as zeros, even where the backing file is longer.</summary>
internal sealed record GrowOperation(int Sectors) : IOperation
{
    private const int MaxSectors = 4096;

    public static GrowOperation Draw(OperationDraw draw) =>
        new(1 + draw.Random.Next(draw.OneIn(3) ? draw.Shape.SectorCount : 2 * draw.Shape.ClusterSectorCount));

    public async Task RunAsync(World world)
    {
        bool isRefused = world.Shape.Version == 2 && world.Snapshots.Any;
        int sectors = world.Model.SectorCount + Sectors;
        if (world.Model.GrowingTo is not null || isRefused || sectors > Math.Max(MaxSectors, 2 * world.Shape.SectorCount))
            return;
        world.Model.BeginGrow(sectors);
        if (await world.TryChangeAsync(Sectors * 512L, image => new ValueTask(image.GrowAsync(sectors * 512L))))
            world.Model.EndGrow(sectors);
        else if (!world.Image.HasFailed)
            world.Model.FailGrow();
    }
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
        else
            return;
        world.NoteSettled();
        if (world.Disk.Unflushed.Count > 0)
            throw new SimulationFailure("close", $"{world.Disk.Unflushed.Count} writes are not on stable storage when the image is closed");
        PoisonFreeSpace(world.Disk, world.CheckFile().Header, world.Shape.DataFile == DataFileKind.None ? world.Disk.Visible.Length : StartImage.DataRegion.Start);
        if (ReadOnlyBetween)
            await world.ReadOnlyVisitAsync();
        await world.OpenAsync();
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
internal sealed record CrashOperation(bool LosesPower) : IOperation
{
    public static CrashOperation Draw(OperationDraw draw) => new(draw.OneIn(2));

    public Timing Timing => Timing.Interrupting;

    public Task RunAsync(World world) => LosesPower ? world.LosePowerAsync() : world.KillProcessAsync();
}
