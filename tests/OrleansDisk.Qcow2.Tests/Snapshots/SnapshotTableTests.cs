using System.Text;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Snapshots;

namespace OrleansDisk.Qcow2.Tests.Snapshots;

/// <summary>What the snapshot table as a whole allows, finds and refuses.</summary>
public sealed class SnapshotTableTests
{
    private static readonly ClusterGeometry s_geometry = new(clusterBits: 16, refcountOrder: 4);

    [Theory]
    [InlineData("2", null, "two")]
    [InlineData(null, "two", "two")]
    [InlineData("2", "two", "two")]
    [InlineData(null, null, "one")]
    public void A_selector_finds_the_first_snapshot_that_has_all_it_says(string? id, string? name, string found) =>
        Assert.Equal(found, SnapshotTable.Find([Entry("1", "one"), Entry("2", "two")], new SnapshotSelector { Id = id, Name = name }).Name);

    [Theory]
    [InlineData("1", "two")]
    [InlineData("3", null)]
    [InlineData(null, "three")]
    public void A_selector_that_no_snapshot_has_is_refused(string? id, string? name)
    {
        var refusal = Assert.Throws<SnapshotException>(
            () => SnapshotTable.Find([Entry("1", "one"), Entry("2", "two")], new SnapshotSelector { Id = id, Name = name }));
        Assert.Equal(SnapshotError.NotFound, refusal.Error);
    }

    [Theory]
    [InlineData(65537, 1)]
    [InlineData(-65536, 1)]
    [InlineData(long.MaxValue & ~0xffffL, 1 << 20)]
    public void An_L1_table_that_lies_where_none_can_is_refused(long offset, int entryCount)
    {
        SnapshotEntry entry = Entry("1", "one") with { L1Table = new HostOffset(offset), L1EntryCount = entryCount };
        Assert.Equal("Snapshot L1 table offset invalid",
            Assert.Throws<Qcow2FormatException>(() => SnapshotTable.ValidateL1(entry, s_geometry)).Message);
    }

    [Fact]
    public void An_L1_table_over_32_MiB_is_refused()
    {
        SnapshotEntry entry = Entry("1", "one") with { L1EntryCount = (32 << 20) / 8 + 1 };
        Assert.Equal("Snapshot L1 table too large", Assert.Throws<Qcow2FormatException>(() => SnapshotTable.ValidateL1(entry, s_geometry)).Message);
    }

    [Fact]
    public void A_name_that_the_format_has_no_room_for_is_refused()
    {
        Assert.Equal(65535, SnapshotTable.Store(new string('n', 65535)).Length);
        var refusal = Assert.Throws<SnapshotException>(() => SnapshotTable.Store(new string('n', 65536)));
        Assert.Equal(SnapshotError.TooLarge, refusal.Error);
        Assert.Contains("65536", refusal.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_table_over_64_MiB_and_one_of_too_many_snapshots_are_refused()
    {
        SnapshotEntry longName = Entry("1", new string('n', 65535));
        Assert.Throws<SnapshotException>(() => SnapshotTable.Write([.. Enumerable.Repeat(longName, 1100)], virtualBytes: 0));
        SnapshotEntry entry = Entry("1", "one");
        Assert.Equal(65536 * 72, SnapshotTable.Write([.. Enumerable.Repeat(entry, 65536)], virtualBytes: 0).Length + (72 - entry.WrittenBytes));
        Assert.Throws<SnapshotException>(() => SnapshotTable.Write([.. Enumerable.Repeat(entry, 65537)], virtualBytes: 0));
    }

    [Fact]
    public void A_new_id_is_one_more_than_the_largest_number_with_which_an_id_begins() =>
        Assert.Equal("13", SnapshotTable.NextId([Entry("3", "a"), Entry("12th", "b"), Entry("x99", "c")]));

    private static SnapshotEntry Entry(string id, string name) => new()
    {
        L1Table = new HostOffset(65536),
        L1EntryCount = 1,
        StoredId = Encoding.UTF8.GetBytes(id),
        StoredName = Encoding.UTF8.GetBytes(name),
        DateSeconds = 0,
        DateNanoseconds = 0,
        VmClockNanoseconds = 0,
        VmStateBytes = 0,
    };
}
