using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Simulation.Host;
using OrleansDisk.Simulation.Model;
using OrleansDisk.Simulation.Workload;
using OrleansDisk.Simulation.Workload.Operations;
using static OrleansDisk.Simulation.Tests.Story;

namespace OrleansDisk.Simulation.Tests;

/// <summary>
/// Defects that this engine had, or that others of its kind had, each with the line that guards against it: the test
/// fails when the line is removed.
/// </summary>
public sealed class RegressionTests
{
    private static readonly Shape s_overlay = new()
    {
        ClusterBits = 11,
        SectorCount = 96,
        BackingDepth = 2,
        BackingSectorCount = 96,
        MaxInFlight = 8,
        CachedTableCount = 3,
    };

    private static readonly Shape s_encrypted = new() { ClusterBits = 12, SectorCount = 96, BackingDepth = 1, BackingSectorCount = 60, MaxInFlight = 6 };

    /// <summary>Guard: <c>WriteOrder.Failed</c> stops the image (W7).</summary>
    [Fact]
    public void No_cluster_is_given_out_twice_after_an_L2_table_could_not_be_moved() => Tell(
        SnapshotFixture.Get(1).Shape with { MaxInFlight = 3 }, 8, _ => [new Fault(FileEvents.L2Alloc, 1, FaultKind.InputOutput)],
        draw => [.. Draw(draw, 12, WriteOperation.Draw), new FlushOperation(), .. Draw(draw, 12, WriteOperation.Draw), new FlushOperation(), .. Draw(draw, 8, WriteOperation.Draw)],
        mustStop: true);

    /// <summary>Guard: <c>ClusterAllocator.ReleaseAsync</c> punches before it lowers the refcount.</summary>
    [Fact]
    public void A_hole_is_not_punched_into_a_cluster_that_is_in_use_again() => Tell(
        new Shape { ClusterBits = 12, SectorCount = 160, MaxInFlight = 8, CachedTableCount = 3 }, 12, NoFaults,
        draw => Draw(draw, 90, WriteOperation.Draw, WriteOperation.Draw, DiscardOperation.Draw, _ => new FlushOperation(), ReadOperation.Draw));

    /// <summary>Guard: <c>Qcow2Image.CloseOnceAsync</c> settles the metadata before it lets go.</summary>
    [Fact]
    public void An_image_that_is_handed_over_is_flushed_with_its_metadata() => Tell(
        new Shape { ClusterBits = 12, SectorCount = 160 }, 2, NoFaults,
        draw => [.. Draw(draw, 6, WriteOperation.Draw), new ReopenOperation(ReadOnlyBetween: true), .. Draw(draw, 6, DiscardOperation.Draw), new ReopenOperation(ReadOnlyBetween: false)]);

    /// <summary>Guard: <c>Qcow2Image.RunSettledAsync</c> settles the metadata before others look at the file.</summary>
    [Fact]
    public void Who_looks_at_the_file_while_the_image_pauses_finds_its_metadata() => Tell(
        new Shape { ClusterBits = 12, SectorCount = 160 }, 2, NoFaults,
        draw => [.. Draw(draw, 6, WriteOperation.Draw), new SettledCheckOperation(), .. Draw(draw, 6, ZeroOperation.Draw), new SettledCheckOperation()]);

    /// <summary>Guard: <c>GuestWriter.WriteSomeAsync</c> waits for another's reservation (W6).</summary>
    [Fact]
    public void Several_queues_over_a_warm_chain_copy_each_cluster_once() => Tell(
        s_overlay, 8, NoFaults, draw => Draw(draw, 80, SmallWrite, SmallWrite, ReadOperation.Draw, _ => new FlushOperation()));

    /// <summary>Guard: <c>GuestZeroes.ChangeAsync</c> leaves reserved clusters to those who reserved them (W6).</summary>
    [Fact]
    public void Zeros_and_discards_wait_for_writes_that_are_on_their_way() => Tell(
        s_overlay, 8, NoFaults, draw => Draw(draw, 80, SmallWrite, SmallWrite, ClusterZero, ReadOperation.Draw));

    /// <summary>Guard: the barrier before the entry in <c>WriteOrder.WriteRefcountTableAsync</c> (W4).</summary>
    [Fact]
    public void A_refcount_block_that_is_allocated_while_clusters_are_is_there_before_its_entry() => Tell(
        new Shape { RefcountOrder = 6, UsedClusterCount = 60, SectorCount = 192, MaxInFlight = 4 }, 8, NoFaults,
        draw => Draw(draw, 40, WriteOperation.Draw, WriteOperation.Draw, _ => new FlushOperation()), FileEvents.RefblockAlloc);

    /// <summary>Guard: the barrier before the header in <c>WriteOrder.WriteRefcountTableAsync</c> (W4).</summary>
    [Fact]
    public void A_refcount_table_that_moves_in_the_middle_of_a_write_is_there_before_the_header_says_so() => Tell(
        new Shape { RefcountOrder = 6, UsedClusterCount = 4085, SectorCount = 96, MaxInFlight = 3 }, 3, NoFaults,
        draw => [new WriteOperation(0, 24_000, Fua: false), .. Draw(draw, 6, WriteOperation.Draw), new FlushOperation()], FileEvents.ReftableGrow);

    /// <summary>Guard: the first barrier of <c>WriteOrder.WriteBackAsync</c> (W1, W2).</summary>
    [Fact]
    public void A_table_that_leaves_the_cache_does_not_overtake_the_refcounts_of_its_clusters() => Tell(
        new Shape { ClusterBits = 9, RefcountOrder = 3, SectorCount = 320, MaxInFlight = 4, CachedTableCount = 2 }, 4, NoFaults,
        draw => Draw(draw, 60, WriteOperation.Draw, WriteOperation.Draw, ReadOperation.Draw), FileEvents.L2Write);

    /// <summary>Guard: <c>WriteOrder.Failed</c> and the catch of <c>WriteBackUntilNobodyWaitsAsync</c> stop the image (W7).</summary>
    [Fact]
    public void A_flush_that_fails_is_not_followed_by_one_that_succeeds() => Tell(
        new Shape { ClusterBits = 12, SectorCount = 160, MaxInFlight = 4 }, 12,
        seed => [new Fault(seed % 2 == 0 ? FileEvents.FlushBeforePointers : FileEvents.FlushAfterPointers, 1 + (seed / 2), FaultKind.InputOutput)],
        draw => Draw(draw, 60, WriteOperation.Draw, WriteOperation.Draw, _ => new FlushOperation()), mustStop: true);

    /// <summary>Guard: <c>WriteOrder</c> begins with a flush to do (found by seed 3).</summary>
    [Fact]
    public void The_first_flush_covers_what_a_dead_owner_left_unflushed() => Tell(
        new Shape { ClusterBits = 12, SectorCount = 96, IsPreallocated = true, MaxInFlight = 1 }, 4, NoFaults,
        _ => [new WriteOperation(0, 8192, Fua: false), new CrashOperation(LosesPower: false), new FlushOperation(), new CrashOperation(LosesPower: true)]);

    /// <summary>Guard: <c>ImageMetadata.GrowAsync</c> fills before it writes the size (found by seed 1).</summary>
    [Fact]
    public void A_disk_that_grows_never_shows_what_a_longer_backing_file_holds() => Tell(
        new Shape { ClusterBits = 12, SectorCount = 96, BackingDepth = 1, BackingSectorCount = 144, MaxInFlight = 1 }, 4, NoFaults,
        _ => [new WriteOperation(0, 8192, Fua: false), new GrowOperation(40, Preallocation.Off), new FlushOperation()]);

    /// <summary>Guard: parts of <c>GuestZeroes.ZeroPartAsync</c> meet between sectors (found by seed 87).</summary>
    [Fact]
    public void Zeros_that_are_written_in_parts_tear_no_sector() => Tell(
        new Shape { ClusterBits = 20, SectorCount = 6144, MaxInFlight = 2, CanPunchHoles = false }, 2, NoFaults,
        _ => [new WriteOperation(0, 1 << 20, Fua: true), new ZeroOperation(1000, 800_001, MayUnmap: true, Fua: false), new FlushOperation()]);

    /// <summary>
    /// Guards: <c>ClusterAllocator.TryRaiseAsync</c> refuses clusters that are being punched, and <c>CompressedSpace</c>
    /// leaves those that became free.
    /// </summary>
    [Fact]
    public void Compressed_clusters_are_not_put_where_the_last_ones_are_just_going() => Tell(
        new Shape { ClusterBits = 12, SectorCount = 96, MaxInFlight = 1 }, 8, seed => [new Fault(FileEvents.PunchHole, 1 + seed, FaultKind.Slow)],
        _ => [.. Enumerable.Range(0, 12).SelectMany(i => (IOperation[])
        [
            new CompressedWriteOperation(i % 3), new DiscardOperation(0, 96 * 512, Fua: true), new CompressedWriteOperation(4), new FlushOperation(),
        ])]);

    /// <summary>Guard: <c>CompressedClusters.ForgetFreed</c>.</summary>
    [Fact]
    public void What_was_decompressed_is_forgotten_when_other_bytes_take_its_place() => Tell(
        new Shape { ClusterBits = 12, SectorCount = 32, MaxInFlight = 1 }, 2, NoFaults,
        _ => [.. Enumerable.Range(0, 6).SelectMany(_ => (IOperation[])
            [new CompressedWriteOperation(0), new ReadOperation(512, 512), new DiscardOperation(0, 4096, Fua: true), new FlushOperation()])]);

    /// <summary>Guard: <c>EncryptedGuestData.FreshClustersAreZero</c>.</summary>
    [Theory]
    [InlineData(EncryptionMethod.Aes, false)]
    [InlineData(EncryptionMethod.Luks, false)]
    [InlineData(EncryptionMethod.Aes, true)]
    [InlineData(EncryptionMethod.Luks, true)]
    public void New_clusters_of_an_encrypted_image_are_written_all_through(EncryptionMethod method, bool hasDataFile) => Tell(
        s_encrypted with { Encryption = method, DataFile = hasDataFile ? DataFileKind.Plain : DataFileKind.None }, 3, NoFaults,
        draw => Draw(draw, 40, WriteOperation.Draw, SessionWriteOperation.Draw, ZeroOperation.Draw, DiscardOperation.Draw, ReadOperation.Draw, _ => new FlushOperation()));

    /// <summary>Guard: copies on write go by <c>EncryptedGuestData</c>, which counts the sectors of both places.</summary>
    [Theory]
    [InlineData(6)]
    [InlineData(7)]
    public void Snapshots_that_QEMU_took_of_an_encrypted_image_stay_what_they_are(int fixture) => Tell(
        SnapshotFixture.Get(fixture).Shape, 2, NoFaults,
        draw => Draw(draw, 40, WriteOperation.Draw, SessionWriteOperation.Draw, ZeroOperation.Draw, CreateSnapshotOperation.Draw, DeleteSnapshotOperation.Draw, _ => new FlushOperation()));

    private static WriteOperation SmallWrite(OperationDraw draw) => new WriteOperation(
        draw.Random.Next(draw.Shape.SectorCount / 4) * (long)SectorContent.Bytes, SectorContent.Bytes * (1 + draw.Random.Next(2)), Fua: false);

    private static IOperation ClusterZero(OperationDraw draw)
    {
        long offset = draw.Random.Next(draw.Shape.SectorCount / 4 / draw.Shape.ClusterSectorCount) * (long)draw.Shape.ClusterBytes;
        return draw.OneIn(2) ? new ZeroOperation(offset, draw.Shape.ClusterBytes, draw.OneIn(2), Fua: false)
            : new DiscardOperation(offset, draw.Shape.ClusterBytes, Fua: false);
    }
}
