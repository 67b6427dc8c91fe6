namespace OrleansDisk.Simulation.Workload.Operations;

/// <summary>A snapshot is taken while others write; what it holds is one moment's disk, and stays that.</summary>
internal sealed record CreateSnapshotOperation(string Name) : IOperation
{
    public static CreateSnapshotOperation Draw(OperationDraw draw) => new(SnapshotNames.Draw(draw));

    public Task RunAsync(World world) => world.CreateSnapshotAsync(Name);
}

/// <summary>A snapshot is deleted while others write.</summary>
internal sealed record DeleteSnapshotOperation(string Name) : IOperation
{
    public static DeleteSnapshotOperation Draw(OperationDraw draw) => new(SnapshotNames.Draw(draw));

    public Task RunAsync(World world) => world.DeleteSnapshotAsync(Name);
}

/// <summary>The disk becomes what a snapshot holds.</summary>
internal sealed record ApplySnapshotOperation(string Name) : IOperation
{
    public static ApplySnapshotOperation Draw(OperationDraw draw) => new(SnapshotNames.Draw(draw));

    public Timing Timing => Timing.Alone;

    public Task RunAsync(World world) => world.ApplySnapshotAsync(Name);
}

/// <summary>Few names, so that operations meet the same snapshots; two are those of the fixtures.</summary>
internal static class SnapshotNames
{
    private static readonly string[] s_all = ["first", "second", "third"];

    public static string Draw(OperationDraw draw) => s_all[draw.Random.Next(s_all.Length)];
}
