using OrleansDisk.Qcow2.Data;
using OrleansDisk.Simulation.Model;

namespace OrleansDisk.Simulation.Workload.Operations;

/// <summary>A write of any alignment, with or without FUA.</summary>
internal sealed record WriteOperation(long Offset, int Length, bool Fua) : IOperation
{
    public static WriteOperation Draw(OperationDraw draw)
    {
        (long offset, int bytes) = draw.Range();
        return new WriteOperation(offset, bytes, draw.OneIn(8));
    }

    public async Task RunAsync(World world)
    {
        int bytes = Length;
        if (!world.TryClip(Offset, ref bytes))
            return;
        using SectorHolds.Hold hold = await world.HoldAsync(Offset, bytes);
        if (!await world.PinAsync(hold.Parts))
            return;
        DiskModel.Change change = world.Model.BeginWrite(Offset, bytes, out byte[] data);
        await world.ChangeAsync(change, bytes, Fua, image => image.WriteAsync(Offset, data, Fua));
    }
}

/// <summary>A read of any alignment.</summary>
internal sealed record ReadOperation(long Offset, int Length) : IOperation
{
    public static ReadOperation Draw(OperationDraw draw)
    {
        (long offset, int bytes) = draw.Range();
        return new ReadOperation(offset, bytes);
    }

    public Task RunAsync(World world)
    {
        int bytes = Length;
        return world.TryClip(Offset, ref bytes) ? world.ReadAsync(Offset, bytes) : Task.CompletedTask;
    }
}

/// <summary>Zeros by entries or by writes.</summary>
internal sealed record ZeroOperation(long Offset, int Length, bool MayUnmap, bool Fua) : IOperation
{
    public static ZeroOperation Draw(OperationDraw draw)
    {
        (long offset, int bytes) = draw.Range();
        return new ZeroOperation(offset, bytes, draw.OneIn(2), draw.OneIn(8));
    }

    public async Task RunAsync(World world)
    {
        int bytes = Length;
        if (!world.TryClip(Offset, ref bytes))
            return;
        using SectorHolds.Hold hold = await world.HoldAsync(Offset, bytes);
        if (!await world.PinAsync(hold.Parts))
            return;
        DiskModel.Change change = world.Model.BeginZero(Offset, bytes);
        await world.ChangeAsync(change, bytes, Fua, image => image.WriteZeroesAsync(Offset, bytes, MayUnmap, Fua));
    }
}

/// <summary>A discard leaves each sector as it was or makes it zeros, and what it then reads stays.</summary>
internal sealed record DiscardOperation(long Offset, int Length, bool Fua) : IOperation
{
    public static DiscardOperation Draw(OperationDraw draw)
    {
        (long offset, int bytes) = draw.Range();
        return new DiscardOperation(offset, bytes, draw.OneIn(8));
    }

    public async Task RunAsync(World world)
    {
        int bytes = Length;
        if (!world.TryClip(Offset, ref bytes))
            return;
        using SectorHolds.Hold hold = await world.HoldAsync(Offset, bytes);
        DiskModel.Change change = world.Model.BeginDiscard(Offset, bytes);
        bool succeeded = await world.TryChangeAsync(bytes, image => image.DiscardAsync(Offset, bytes, Fua));
        change.EndUncertain();
        if (!succeeded)
            return;
        hold.TakeAloneWhatIsFree();
        await world.PinAsync(hold.Parts);
    }
}

/// <summary>A session's thread writes by a lease where it can, and asks the image where it can't.</summary>
internal sealed record SessionWriteOperation(long Offset, int Length) : IOperation
{
    public static SessionWriteOperation Draw(OperationDraw draw)
    {
        (long offset, int bytes) = draw.Range();
        return new SessionWriteOperation(offset, bytes);
    }

    public async Task RunAsync(World world)
    {
        int bytes = Length;
        if (!world.TryClip(Offset, ref bytes))
            return;
        using SectorHolds.Hold hold = await world.HoldAsync(Offset, bytes);
        if (!await world.PinAsync(hold.Parts))
            return;
        DiskModel.Change change = world.Model.BeginWrite(Offset, bytes, out byte[] data);
        await world.ChangeAsync(change, bytes, isDurable: false, image =>
        {
            using MappingLease lease = image.Lease();
            return lease.TryWrite(Offset, data) ? ValueTask.CompletedTask : image.WriteAsync(Offset, data);
        });
    }
}

/// <summary>A session's thread reads by a lease where it can, and asks the image where it can't.</summary>
internal sealed record SessionReadOperation(long Offset, int Length) : IOperation
{
    public static SessionReadOperation Draw(OperationDraw draw)
    {
        (long offset, int bytes) = draw.Range();
        return new SessionReadOperation(offset, bytes);
    }

    public Task RunAsync(World world)
    {
        int bytes = Length;
        if (!world.TryClip(Offset, ref bytes))
            return Task.CompletedTask;
        byte[] data = new byte[bytes];
        return world.ReadAsync(Offset, data, image =>
        {
            using MappingLease lease = image.Lease();
            return lease.TryRead(Offset, data) ? ValueTask.CompletedTask : image.ReadAsync(Offset, data);
        });
    }
}

internal sealed record FlushOperation : IOperation
{
    public async Task RunAsync(World world)
    {
        long begin = world.Model.BeginFlush();
        if (await world.TryAsync(image => image.FlushAsync()))
            world.Model.EndFlush(begin);
    }
}

/// <summary>Extents cover the range without gaps, and who says zero reads zero.</summary>
internal sealed record ExtentOperation(long Offset, int Length) : IOperation
{
    public static ExtentOperation Draw(OperationDraw draw)
    {
        (long offset, int bytes) = draw.Range();
        return new ExtentOperation(offset, bytes);
    }

    public async Task RunAsync(World world)
    {
        int bytes = Length;
        world.TryClip(Offset, ref bytes);
        for (long at = Offset; at < Offset + bytes;)
        {
            long left = Offset + bytes - at;
            long[] from = world.Model.BeginRead(at, left);
            DiskExtent extent = default;
            if (!await world.TryAsync(async image => extent = await image.GetExtentAsync(at, left)))
                return;
            if (extent.Bytes < 1 || extent.Bytes > left)
                throw new SimulationFailure("extent", $"an extent of {extent.Bytes} bytes at {at}, where {left} were asked for");
            if (extent.State is DiskExtentState.Zero or DiskExtentState.ZeroAllocated)
                world.Model.EndRead(at, new byte[extent.Bytes], from);
            at += extent.Bytes;
        }
    }
}
