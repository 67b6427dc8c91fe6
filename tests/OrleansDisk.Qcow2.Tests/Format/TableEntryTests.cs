using OrleansDisk.Qcow2.Format;

namespace OrleansDisk.Qcow2.Tests.Format;

public sealed class TableEntryTests
{
    private static readonly ClusterGeometry _geometry = new(16, 4);

    [Fact]
    public void A_compressed_descriptor_counts_sectors_beyond_the_first()
    {
        // x = 62 - (16 - 8) = 54 offset bits.
        var entry = new L2Entry((1UL << 62) | (72UL << 54) | 0x58f1f);
        Assert.Equal(ClusterKind.Compressed, entry.Kind(_geometry));
        Assert.Equal(new CompressedExtent(new HostOffset(0x58f1f), 37089), entry.Compressed(_geometry));
    }

    [Theory]
    [InlineData(9, 61, 1)]
    [InlineData(12, 58, 4)]
    [InlineData(16, 54, 8)]
    [InlineData(21, 49, 13)]
    public void A_compressed_descriptor_splits_by_cluster_size(int clusterBits, int offsetBits, int sectorBits)
    {
        var geometry = new ClusterGeometry(clusterBits, 4);
        long offset = (1L << offsetBits) - 1;
        var entry = new L2Entry((1UL << 62) | (((1UL << sectorBits) - 1) << offsetBits) | (ulong)offset);
        CompressedExtent extent = entry.Compressed(geometry);
        Assert.Equal(offset, extent.Start.Bytes);
        Assert.Equal((512 << sectorBits) - 511, extent.Bytes);
    }

    [Theory]
    [InlineData(0x0000000000000000, ClusterKind.Unallocated)]
    [InlineData(0x8000000000000000, ClusterKind.Unallocated)]
    [InlineData(0x8000000000050000, ClusterKind.Data)]
    [InlineData(0x0000000000050000, ClusterKind.Data)]
    [InlineData(0x0000000000000001, ClusterKind.ZeroPlain)]
    [InlineData(0x8000000000050001, ClusterKind.ZeroAllocated)]
    [InlineData(0x4000000000050001, ClusterKind.Compressed)]
    [InlineData(0xc000000000000000, ClusterKind.Compressed)]
    public void The_kind_of_a_cluster_follows_from_flags_and_offset(ulong raw, ClusterKind kind) =>
        Assert.Equal(kind, new L2Entry(raw).Kind(_geometry));

    [Fact]
    public void Entries_are_made_of_offset_and_flags()
    {
        Assert.Equal(0x8000000000050000, L2Entry.Data(new HostOffset(0x50000), copied: true).Raw);
        Assert.Equal(0x0000000000050000UL, L2Entry.Data(new HostOffset(0x50000), copied: false).Raw);
        Assert.Equal(1UL, L2Entry.ZeroPlain(_geometry).Raw);
        Assert.Equal(0x8000000000050001, new L2Entry(0x50000).WithCopied(true).WithZero(_geometry).Raw);
        Assert.Equal(0x50001UL, new L2Entry(0x8000000000050001).WithCopied(false).Raw);
        Assert.Equal(0x8000000000040000, L1Entry.To(new HostOffset(0x40000), copied: true).Raw);
        Assert.Equal(0x20000UL, RefcountTableEntry.To(new HostOffset(0x20000)).Raw);
    }

    [Fact]
    public void Offsets_do_not_contain_reserved_bits_or_flags()
    {
        var l1 = new L1Entry(ulong.MaxValue);
        var l2 = new L2Entry(ulong.MaxValue & ~(1UL << 62));
        Assert.Equal(0x00ff_ffff_ffff_fe00, l1.L2Table.Bytes);
        Assert.Equal(0x00ff_ffff_ffff_fe00, l2.Host.Bytes);
        Assert.Equal(0x7f00_0000_0000_01ffUL, L1Entry.ReservedMask);
        Assert.Equal(0x3f00_0000_0000_01feUL, L2Entry.ReservedMask);
        Assert.Equal(0x1ffUL, RefcountTableEntry.ReservedMask);
        Assert.True(l1.IsCopied);
        Assert.True(l2.IsCopied);
    }
}
