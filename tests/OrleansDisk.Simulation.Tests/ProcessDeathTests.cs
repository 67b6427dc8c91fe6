using OrleansDisk.Qcow2;
using OrleansDisk.Simulation.Workload;
using OrleansDisk.Simulation.Workload.Operations;
using static OrleansDisk.Simulation.Tests.Story;

namespace OrleansDisk.Simulation.Tests;

/// <summary>
/// A process dies in the middle of a change, another one opens what it sees, and then the power fails: stable storage may
/// say what was before the change, and knows nothing of what the second process was told.
/// </summary>
public sealed class ProcessDeathTests
{
    private const int Seeds = 12;
    private const int MaxTurns = 300;

    [Theory]
    [InlineData(9, 0)]
    [InlineData(12, 0)]
    [InlineData(11, 2)]
    public void A_disk_whose_process_died_while_it_grew_has_the_one_size_or_the_other(int clusterBits, int backingDepth) => Tell(
        new Shape { ClusterBits = clusterBits, SectorCount = 96, BackingDepth = backingDepth, BackingSectorCount = backingDepth * 60, MaxInFlight = 4 }, Seeds, NoFaults,
        draw => [.. Enumerable.Range(0, 8).SelectMany(_ => (IOperation[])
        [
            .. Draw(draw, 3, WriteOperation.Draw, DiscardOperation.Draw),
            new GrowOperation(1 + draw.Random.Next(24), draw.OneIn(3) ? Preallocation.Metadata : Preallocation.Off),
            .. Draw(draw, draw.Random.Next(3), WriteOperation.Draw, ReadOperation.Draw),
            new CrashOperation(LosesPower: false, draw.Random.Next(MaxTurns)),
            .. Draw(draw, 2, WriteOperation.Draw, BitmapChangeOperation.Draw, ShrinkOperation.Draw, _ => new FlushOperation(), CrashOperation.Draw),
        ])]);

    [Theory]
    [InlineData(9)]
    [InlineData(12)]
    public void A_snapshot_whose_process_died_is_there_or_not(int clusterBits) => Tell(
        new Shape { ClusterBits = clusterBits, SectorCount = 96, MaxInFlight = 4 }, Seeds, NoFaults,
        draw => [.. Enumerable.Range(0, 8).SelectMany(_ => (IOperation[])
        [
            .. Draw(draw, 3, WriteOperation.Draw, DiscardOperation.Draw),
            draw.OneIn(2) ? CreateSnapshotOperation.Draw(draw) : DeleteSnapshotOperation.Draw(draw),
            .. Draw(draw, draw.Random.Next(3), WriteOperation.Draw, ReadOperation.Draw),
            new CrashOperation(LosesPower: false, draw.Random.Next(MaxTurns)),
            .. Draw(draw, 2, WriteOperation.Draw, CreateSnapshotOperation.Draw, DeleteSnapshotOperation.Draw, _ => new FlushOperation(), CrashOperation.Draw),
        ])]);
}
