using OrleansDisk.Simulation.Workload.Operations;

namespace OrleansDisk.Simulation.Workload;

/// <summary>All kinds of operations, and how often they come.</summary>
internal static class OperationCatalog
{
    private static readonly (int Weight, Func<OperationDraw, IOperation> Draw)[] s_all =
    [
        (36, WriteOperation.Draw),
        (8, CompressedWriteOperation.Draw),
        (10, ReadOperation.Draw),
        (10, SessionWriteOperation.Draw),
        (5, SessionReadOperation.Draw),
        (12, ZeroOperation.Draw),
        (9, DiscardOperation.Draw),
        (8, _ => new FlushOperation()),
        (4, ExtentOperation.Draw),
        (2, _ => new UpkeepOperation()),
        (2, GrowOperation.Draw),
        (1, ShrinkOperation.Draw),
        (4, CreateSnapshotOperation.Draw),
        (3, DeleteSnapshotOperation.Draw),
        (2, ApplySnapshotOperation.Draw),
        (1, _ => new SettledCheckOperation()),
        (2, _ => new CheckInUseOperation()),
        (2, ReopenOperation.Draw),
        (3, BitmapChangeOperation.Draw),
        (1, _ => new BitmapReadOperation()),
        (2, AmendImageOperation.Draw),
        (2, ChangeBackingOperation.Draw),
        (1, _ => new MakeEmptyOperation()),
        (2, ChangeKeysOperation.Draw),
        (1, CrashOperation.Draw),
    ];

    private static readonly int s_totalWeight = s_all.Sum(kind => kind.Weight);

    /// <summary>The next operation that a seed chooses.</summary>
    public static IOperation Draw(OperationDraw draw)
    {
        int at = draw.Random.Next(s_totalWeight);
        foreach ((int weight, Func<OperationDraw, IOperation> drawKind) in s_all)
        {
            if (at < weight)
                return drawKind(draw);
            at -= weight;
        }
        throw new InvalidOperationException("weights do not add up");
    }
}
