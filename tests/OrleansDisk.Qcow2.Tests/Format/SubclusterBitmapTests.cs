using OrleansDisk.Qcow2.Format;

namespace OrleansDisk.Qcow2.Tests.Format;

public sealed class SubclusterBitmapTests
{
    private static readonly ClusterGeometry _geometry = new(16, 4, IncompatibleFeatures.ExtendedL2);

    [Fact]
    public void Extended_entries_halve_a_table_and_divide_a_cluster_by_32()
    {
        Assert.Equal(16, _geometry.L2EntryBytes);
        Assert.Equal(4096, _geometry.L2EntryCount);
        Assert.Equal(256, _geometry.L2SliceEntryCount);
        Assert.Equal(4096, _geometry.L2SliceBytes);
        Assert.Equal(256L << 20, _geometry.BytesPerL2Table);
        Assert.Equal(2048, _geometry.SubclusterBytes);
        Assert.Equal(31, _geometry.SubclusterOf(new GuestOffset((1 << 16) - 1)));
        Assert.Equal(1, _geometry.SubclusterOf(new GuestOffset((7L << 16) + 2048)));
    }

    [Fact]
    public void Without_subclusters_a_cluster_is_the_only_one_of_its_own()
    {
        var plain = new ClusterGeometry(16, 4);
        Assert.Equal(plain.ClusterBytes, plain.SubclusterBytes);
        Assert.Equal(0, plain.SubclusterOf(new GuestOffset(70_000)));
        Assert.Equal(ClusterKind.ZeroAllocated, new L2Entry(0x50001).KindAt(0, plain));
    }

    [Theory]
    [InlineData(0x8000000000050000, 0x0000000000000001, 0, ClusterKind.Data)]
    [InlineData(0x8000000000050000, 0x0000000000000001, 1, ClusterKind.Unallocated)]
    [InlineData(0x8000000000050000, 0x8000000000000001, 31, ClusterKind.ZeroAllocated)]
    [InlineData(0x0000000000000000, 0x8000000000000000, 31, ClusterKind.ZeroPlain)]
    [InlineData(0x0000000000000000, 0x8000000000000000, 30, ClusterKind.Unallocated)]
    [InlineData(0x0000000000000000, 0x0000000000000001, 5, ClusterKind.Invalid)]
    [InlineData(0x8000000000050000, 0x0000000100000001, 5, ClusterKind.Invalid)]
    [InlineData(0x4000000000050000, 0x0000000000000000, 5, ClusterKind.Compressed)]
    [InlineData(0x8000000000050001, 0x0000000000000002, 1, ClusterKind.Data)] // no zero flag in extended entries
    [InlineData(0x0000000000000001, 0x0000000000000000, 1, ClusterKind.Unallocated)]
    public void The_kind_of_a_subcluster_follows_from_the_bitmap_and_the_host_cluster(
        ulong raw, ulong bitmap, int subcluster, ClusterKind kind) =>
        Assert.Equal(kind, new L2Entry(raw, new SubclusterBitmap(bitmap)).KindAt(subcluster, _geometry));

    [Fact]
    public void A_range_of_subclusters_changes_and_nothing_else()
    {
        Assert.Equal(0x00000000_00000ff0UL, default(SubclusterBitmap).WithData(4, 8).Raw);
        Assert.Equal(0xffffff0f_000000f0UL, SubclusterBitmap.AllZero.WithData(4, 4).Raw);
        Assert.Equal(0x000000f0_ffffff0fUL, SubclusterBitmap.AllData.WithZeroes(4, 4).Raw);
        Assert.Equal(SubclusterBitmap.AllData, SubclusterBitmap.AllZero.WithData(0, 32));
        Assert.Equal(SubclusterBitmap.AllZero, SubclusterBitmap.AllData.WithZeroes(0, 32));
        Assert.True(SubclusterBitmap.AllData.WithZeroes(4, 4).IsZero(4, 4));
        Assert.False(SubclusterBitmap.AllData.WithZeroes(4, 4).IsData(3, 2));
        Assert.True(SubclusterBitmap.AllData.IsData(0, 32));
    }

    [Theory]
    [InlineData(0x00000000_00000000, 0, 32)]
    [InlineData(0x00000000_00000000, 31, 1)]
    [InlineData(0x00000000_ffffffff, 0, 32)]
    [InlineData(0xffffffff_00000000, 7, 25)]
    [InlineData(0x0000ff00_000000ff, 0, 8)]
    [InlineData(0x0000ff00_000000ff, 9, 7)]
    [InlineData(0x0000ff00_000000ff, 16, 16)]
    [InlineData(0x0000ff00_0f0000ff, 16, 8)]
    public void Neighbours_that_are_alike_are_counted(ulong bitmap, int subcluster, int count) =>
        Assert.Equal(count, new SubclusterBitmap(bitmap).CountAlike(subcluster));

    [Fact]
    public void An_entry_has_two_halves_on_disk()
    {
        var entry = new L2Entry(0x8000000000050000, new SubclusterBitmap(0x12345678_0000ffff));
        byte[] table = new byte[48];
        entry.WriteTo(table, 1, _geometry);
        Assert.Equal("8000000000050000123456780000FFFF", Convert.ToHexString(table, 16, 16));
        Assert.Equal(entry, L2Entry.Read(table, 1, _geometry));
        Assert.Equal(default, L2Entry.Read(table, 2, _geometry));
    }

    [Fact]
    public void Offset_zero_is_a_place_in_an_external_data_file_alone()
    {
        var external = new ClusterGeometry(16, 4, IncompatibleFeatures.ExternalDataFile);
        Assert.Equal(ClusterKind.Data, new L2Entry(1UL << 63).Kind(external));
        Assert.Equal(ClusterKind.Unallocated, new L2Entry(0).Kind(external));
        Assert.Equal(ClusterKind.Unallocated, new L2Entry(1UL << 63).Kind(new ClusterGeometry(16, 4)));
    }
}
