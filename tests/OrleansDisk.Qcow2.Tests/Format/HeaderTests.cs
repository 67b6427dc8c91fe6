using System.Buffers.Binary;
using System.Text;
using OrleansDisk.Qcow2.Format;

namespace OrleansDisk.Qcow2.Tests.Format;

public sealed class HeaderTests
{
    /// <summary>The fields of a version 3 header, each with a value of its own.</summary>
    private const string Golden =
        "514649fb 00000003 0000000000000000 00000000 0000000c 0000000012345600 00000000 00000123 "
        + "0000000000007000 0000000000005000 00000002 00000000 0000000000000000 "
        + "0000000000000003 0000000000000001 0000000000000002 00000005 00000070 00 00000000000000";

    private static Header Full => new()
    {
        Version = 3,
        Geometry = new ClusterGeometry(12, 5),
        VirtualBytes = 0x12345600,
        L1EntryCount = 0x123,
        L1Table = new HostOffset(0x7000),
        RefcountTable = new HostOffset(0x5000),
        RefcountTableClusters = 2,
        Incompatible = IncompatibleFeatures.Dirty | IncompatibleFeatures.Corrupt,
        Compatible = CompatibleFeatures.LazyRefcounts,
        Autoclear = AutoclearFeatures.RawExternalData,
        HeaderBytes = Header.Version3Bytes,
    };

    [Fact]
    public void The_fields_lie_where_the_specification_says()
    {
        byte[] cluster = new byte[4096];
        Full.WriteTo(cluster);
        Assert.Equal(Golden.Replace(" ", ""), Convert.ToHexStringLower(cluster[..112]));
        Assert.Equal(new byte[4096 - 112], cluster[112..]);
    }

    [Fact]
    public void What_is_written_reads_back()
    {
        HeaderExtension[] extensions =
        [
            HeaderExtension.BackingFormat("raw"),
            HeaderExtension.FeatureNames([]),
            new((HeaderExtensionType)0x1234_5678, [1, 2, 3]),
        ];
        Header header = Full with { BackingFile = "/images/grün.img", Extensions = extensions };
        byte[] cluster = new byte[4096];
        header.WriteTo(cluster);
        var read = Header.Parse(cluster);
        Assert.Equal("raw", read.BackingFormat);
        Assert.Equal("/images/grün.img", read.BackingFile);
        Assert.Equal(extensions.Select(e => (e.Type, Convert.ToHexString(e.Data))),
            read.Extensions.Select(e => (e.Type, Convert.ToHexString(e.Data))));
        Assert.Equal(header with { Extensions = [], Geometry = read.Geometry }, read with { Extensions = [] });
        Assert.Equal((12, 5), (read.Geometry.ClusterBits, read.Geometry.RefcountOrder));
    }

    [Fact]
    public void Version_2_has_72_bytes_and_16_bit_refcounts()
    {
        Header header = Full with
        {
            Version = 2,
            Geometry = new ClusterGeometry(12, 4),
            HeaderBytes = Header.Version2Bytes,
            Incompatible = 0,
            Compatible = 0,
            Autoclear = 0,
        };
        byte[] cluster = new byte[4096];
        header.WriteTo(cluster);
        Assert.Equal(new byte[4096 - 72], cluster[72..]);
        cluster[96..104].AsSpan().Fill(0xff);
        var read = Header.Parse(cluster);
        Assert.Equal((2, 72, 4), (read.Version, read.HeaderBytes, read.Geometry.RefcountOrder));
    }

    [Theory]
    [InlineData(0, 0u, "Image is not in qcow2 format")]
    [InlineData(4, 1u, "Unsupported qcow2 version 1")]
    [InlineData(4, 4u, "Unsupported qcow2 version 4")]
    [InlineData(20, 8u, "Unsupported cluster size: 2^8")]
    [InlineData(20, 22u, "Unsupported cluster size: 2^22")]
    [InlineData(100, 103u, "qcow2 header too short")]
    [InlineData(100, 4097u, "qcow2 header exceeds cluster size")]
    [InlineData(96, 7u, "Reference count entry width too large; may not exceed 64 bits")]
    [InlineData(12, 4097u, "Invalid backing file offset")]
    [InlineData(32, 3u, "Unsupported encryption method 3")]
    [InlineData(56, 0u, "Image does not contain a reference count table")]
    [InlineData(56, 2049u, "Reference count table too large")]
    [InlineData(52, 0x5001u, "Reference count table offset invalid")]
    [InlineData(60, 65537u, "Snapshot table too large")]
    [InlineData(68, 1u, "Snapshot table offset invalid")]
    [InlineData(36, 0x400001u, "Active L1 table too large")]
    [InlineData(44, 0x7200u, "Active L1 table offset invalid")]
    [InlineData(24, 0x7fffffffu, "Image is too big")]
    [InlineData(24, 1u, "L1 table is too small")]
    [InlineData(104, 0x01000000u, "qcow2: Compression type incompatible feature bit must be set")]
    [InlineData(104, 0x02000000u, "qcow2: unknown compression type: 2")]
    [InlineData(76, 8u, "qcow2: Compression type incompatible feature bit must not be set")]
    [InlineData(76, 0x20u, "Unsupported qcow2 feature(s): Unknown incompatible feature: 20")]
    public void A_field_that_breaks_the_specification_is_named(int offset, uint value, string message)
    {
        byte[] cluster = new byte[4096];
        Full.WriteTo(cluster);
        BinaryPrimitives.WriteUInt32BigEndian(cluster.AsSpan(offset), value);
        Assert.Equal(message, Assert.Throws<Qcow2FormatException>(() => Header.Parse(cluster)).Message);
    }

    [Fact]
    public void An_unknown_feature_is_called_by_the_name_that_the_image_gives_it()
    {
        byte[] row = new byte[FeatureName.RowBytes];
        row[1] = 40;
        Encoding.ASCII.GetBytes("time travel", row.AsSpan(2));
        Header header = Full with
        {
            Incompatible = (IncompatibleFeatures)((1UL << 40) | (1UL << 41)),
            Extensions = [new HeaderExtension(HeaderExtensionType.FeatureNames, row)],
        };
        byte[] cluster = new byte[4096];
        header.WriteTo(cluster);
        Assert.Equal("Unsupported qcow2 feature(s): time travel, Unknown incompatible feature: 20000000000",
            Assert.Throws<Qcow2FormatException>(() => Header.Parse(cluster)).Message);
    }

    [Fact]
    public void An_extension_that_runs_past_the_first_cluster_is_refused()
    {
        byte[] cluster = new byte[4096];
        (Full with { Extensions = [HeaderExtension.BackingFormat("raw")] }).WriteTo(cluster);
        BinaryPrimitives.WriteUInt32BigEndian(cluster.AsSpan(116), 4096 - 112 - 8 + 1);
        Assert.Equal("Header extension too large", Assert.Throws<Qcow2FormatException>(() => Header.Parse(cluster)).Message);
    }

    [Fact]
    public void A_backing_file_name_that_leaves_the_first_cluster_or_is_too_long_is_refused()
    {
        byte[] cluster = new byte[4096];
        (Full with { BackingFile = "base" }).WriteTo(cluster);
        BinaryPrimitives.WriteUInt32BigEndian(cluster.AsSpan(16), 1024);
        Assert.Equal("Backing file name too long", Assert.Throws<Qcow2FormatException>(() => Header.Parse(cluster)).Message);
        BinaryPrimitives.WriteUInt64BigEndian(cluster.AsSpan(8), 4090);
        BinaryPrimitives.WriteUInt32BigEndian(cluster.AsSpan(16), 7);
        Assert.Equal("Backing file name too long", Assert.Throws<Qcow2FormatException>(() => Header.Parse(cluster)).Message);
    }

    [Fact]
    public void An_offset_without_a_length_is_no_backing_file()
    {
        byte[] cluster = new byte[4096];
        Full.WriteTo(cluster);
        BinaryPrimitives.WriteUInt64BigEndian(cluster.AsSpan(8), 4000);
        Assert.Null(Header.Parse(cluster).BackingFile);
    }

    [Fact]
    public void A_header_of_104_bytes_has_no_compression_type()
    {
        byte[] cluster = new byte[4096];
        Full.WriteTo(cluster);
        BinaryPrimitives.WriteUInt32BigEndian(cluster.AsSpan(100), 104);
        cluster[104] = 0; // now the end of the extensions
        Assert.Equal(CompressionType.Zlib, Header.Parse(cluster).CompressionType);
    }
}
