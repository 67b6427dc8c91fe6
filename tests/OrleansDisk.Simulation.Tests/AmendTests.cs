using OrleansDisk.Qcow2.Format;
using OrleansDisk.Simulation.Workload;
using OrleansDisk.Simulation.Workload.Operations;
using static OrleansDisk.Simulation.Tests.Story;

namespace OrleansDisk.Simulation.Tests;

/// <summary>An image becomes one of another kind, and a crash comes at any step of it.</summary>
public sealed class AmendTests
{
    private const int Seeds = 4;

    private static readonly Shape s_plain = new() { ClusterBits = 10, SectorCount = 128, MaxInFlight = 4 };
    private static readonly Shape s_overlay = s_plain with { BackingDepth = 2, BackingSectorCount = 150 };

    private static readonly Func<OperationDraw, IOperation>[] s_guest =
        [WriteOperation.Draw, CompressedWriteOperation.Draw, ZeroOperation.Draw, DiscardOperation.Draw, CreateSnapshotOperation.Draw, DeleteSnapshotOperation.Draw];

    [Fact]
    public void A_version_changes_and_back() => TellOf(s_plain, _ => new AmendImageOperation(Amendment.Version, 0));

    [Fact]
    public void A_version_of_an_overlay_changes_and_back() => TellOf(s_overlay, _ => new AmendImageOperation(Amendment.Version, 0));

    /// <summary>Entries of tables that snapshots share become data: refcounts and zeros first, then the tables where they lie.</summary>
    [Fact]
    public void Zeros_that_hide_a_backing_file_from_snapshots_outlive_a_change_to_version_2() => Tell(s_overlay, Seeds, NoFaults, draw =>
    [
        .. Draw(draw, 8, ZeroOperation.Draw, WriteOperation.Draw),
        new CreateSnapshotOperation("first"),
        .. Draw(draw, 4, ZeroOperation.Draw, WriteOperation.Draw),
        new CreateSnapshotOperation("second"),
        new FlushOperation(),
        new AmendImageOperation(Amendment.Version, 0),
        .. Draw(draw, 4, ZeroOperation.Draw, WriteOperation.Draw),
        new DeleteSnapshotOperation("first"),
    ]);

    [Fact]
    public void A_version_of_an_image_by_QEMU_with_snapshots_changes_and_back() =>
        TellOf(SnapshotFixture.Get(0).Shape with { MaxInFlight = 4 }, _ => new AmendImageOperation(Amendment.Version, 0));

    [Fact]
    public void Refcounts_get_another_width() => TellOf(s_plain, draw => new AmendImageOperation(Amendment.RefcountWidth, draw.Random.Next(7)));

    [Fact]
    public void Lazy_refcounts_are_switched_on_and_off() => TellOf(s_plain, _ => new AmendImageOperation(Amendment.LazyRefcounts, 0));

    [Fact]
    public void Who_opens_an_image_with_lazy_refcounts_after_a_crash_repairs_it() =>
        TellOf(s_plain with { HasLazyRefcounts = true }, CrashOperation.Draw);

    [Fact]
    public void An_overlay_gets_another_backing_file_or_another_name_of_it() => TellOf(s_overlay, ChangeBackingOperation.Draw);

    [Fact]
    public void A_committed_overlay_is_emptied() => TellOf(s_overlay, _ => new MakeEmptyOperation());

    [Fact]
    public void A_password_opens_the_image_from_when_it_was_added_until_it_is_erased() =>
        TellOf(s_plain with { Encryption = EncryptionMethod.Luks }, ChangeKeysOperation.Draw);

    private static void TellOf(Shape shape, Func<OperationDraw, IOperation> change) => Tell(shape, Seeds, NoFaults,
        draw => [.. Enumerable.Range(0, 6).SelectMany(_ => (IOperation[])[.. Draw(draw, 5, s_guest), change(draw)])]);
}
