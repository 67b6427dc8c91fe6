using OrleansDisk.Qcow2.Check;
using OrleansDisk.Qcow2.Io;
using static OrleansDisk.Testing.DamagedImage;

namespace OrleansDisk.Qcow2.Tests.Check;

/// <summary>
/// Images of 64 KiB clusters as qemu-img makes them, where the refcount table lies at 0x10000, its first block at
/// 0x20000, the L1 table at 0x30000, the first L2 table at 0x40000 and data from 0x50000.
/// </summary>
public sealed class ImageCheckTests : IDisposable
{
    private const long RefcountTable = 0x10000;
    private const long RefcountBlock = 0x20000;
    private const long L1Table = 0x30000;
    private const long L2Table = 0x40000;

    private readonly TemporaryDirectory _directory = new();

    private string Image => _directory.File("image.qcow2");

    public void Dispose() => _directory.Dispose();

    public static TheoryData<string, long, ulong, int> Damage() => new()
    {
        { "a leaked cluster", L2Table + 8, 0, 8 },
        { "two entries share a cluster", L2Table + 8, 0x8000000000050000, 8 },
        { "unaligned data", L2Table + 8, 0x8000000000060200, 8 },
        { "unaligned zero cluster", L2Table + 8, 0x8000000000060201, 8 },
        { "reserved bits in an L2 entry", L2Table + 8, 0x8000000000060002, 8 },
        { "copied flag missing", L2Table + 8, 0x0000000000060000, 8 },
        { "copied flag without offset", L2Table + 8, 0x8000000000000000, 8 },
        { "zero flag and copied flag without offset", L2Table + 8, 0x8000000000000001, 8 },
        { "an allocated zero cluster", L2Table + 8, 0x8000000000060001, 8 },
        { "data past the end of the file", L2Table + 8, 0x8000000010060000, 8 },
        { "data one cluster past the end", L2Table + 8, 0x8000000000090000, 8 },
        { "copied flag on a compressed cluster", L2Table + 8, 0xc000000000060000, 8 },
        { "a compressed cluster of one sector", L2Table + 8, 0x4000000000060000, 8 },
        { "a compressed cluster over two clusters", L2Table + 8, 0x403000000006ff00, 8 },
        { "a compressed cluster past the end", L2Table + 8, 0x4030001000060000, 8 },
        { "reserved bits in an L1 entry", L1Table, 0x8000000000040001, 8 },
        { "an L2 table that is not copied", L1Table, 0x0000000000040000, 8 },
        { "an L2 table past the end of the file", L1Table, 0x8000000010040000, 8 },
        { "no L2 table", L1Table, 0, 8 },
        { "reserved bits in the refcount table", RefcountTable, 0x20001, 8 },
        { "a refcount block past the end of the file", RefcountTable, 0x20020000, 8 },
        { "no refcount block", RefcountTable, 0, 8 },
        { "a refcount block used twice", RefcountTable + 8, 0x20000, 8 },
        { "a second refcount block past the end", RefcountTable + 8, 0x20020000, 8 },
        { "refcount 0 of data", RefcountBlock + 10, 0, 2 },
        { "refcount 7 of data", RefcountBlock + 10, 7, 2 },
        { "refcount 0 of the refcount block", RefcountBlock + 4, 0, 2 },
        { "refcount 2 of the refcount block", RefcountBlock + 4, 2, 2 },
        { "refcount 2 of the L2 table", RefcountBlock + 8, 2, 2 },
        { "a refcount past the end of the file", RefcountBlock + 40, 1, 2 },
        { "dirty", 72, 1, 8 },
        { "corrupt", 72, 2, 8 },
        { "a size between sectors", 24, (4 << 20) + 100, 8 },
        { "the refcount table elsewhere", 48, 0x1000000, 8 },
        { "the L1 table elsewhere", 40, 0x1000000, 8 },
    };

    [Theory]
    [MemberData(nameof(Damage))]
    public async Task Damage_is_reported_in_qemu_imgs_words(string what, long offset, ulong value, int bytes)
    {
        Assert.NotEmpty(what);
        MakeImage("cluster_size=64k", "write 0 256k");
        if (bytes == 8)
            PokeUInt64(Image, offset, value);
        else
            PokeUInt16(Image, offset, (ushort)value);
        await AssertSameAsQemuImgAsync();
    }

    [Theory]
    [InlineData("unaligned L1 table", 0, 0x1234UL, 8)]
    [InlineData("L1 table past the end of the file", 0, 0x10000000UL, 8)]
    [InlineData("huge L1 table", 8, 0x7fffffffUL, 4)]
    public async Task Damage_of_a_snapshot_is_reported_in_qemu_imgs_words(string what, long field, ulong value, int bytes)
    {
        Assert.NotEmpty(what);
        MakeImageWithSnapshots();
        long table = (long)PeekUInt64(Image, 64);
        if (bytes == 8)
            PokeUInt64(Image, table + field, value);
        else
            PokeUInt32(Image, table + field, (uint)value);
        await AssertSameAsQemuImgAsync();
    }

    [Theory]
    [InlineData(3u)]
    [InlineData(60000u)]
    public async Task Snapshots_that_do_not_exist_are_reported_in_qemu_imgs_words(uint count)
    {
        MakeImageWithSnapshots();
        PokeUInt32(Image, 60, count);
        await AssertSameAsQemuImgAsync();
    }

    [Theory]
    [InlineData("cluster_size=512", "1M")]
    [InlineData("cluster_size=512,refcount_bits=1", "3M")]
    [InlineData("cluster_size=1k,refcount_bits=64", "3M")]
    [InlineData("cluster_size=2M,refcount_bits=8", "300M")]
    [InlineData("cluster_size=64k,compat=0.10", "1G")]
    [InlineData("cluster_size=4k,preallocation=metadata", "20M")]
    [InlineData("cluster_size=512,preallocation=metadata", "20M")]
    [InlineData("cluster_size=64k", "0")]
    [InlineData("cluster_size=64k,compression_type=zstd", "1M")]
    public async Task Sound_images_have_no_findings_and_the_same_totals(string options, string size)
    {
        ExternalTool.QemuImg(_directory.Directory, "create", "-q", "-f", "qcow2", "-o", options, Image, size).Succeeded();
        CheckReport report = await AssertSameAsQemuImgAsync();
        Assert.True(report.IsConsistent);
        if (size == "0")
            return;
        ExternalTool.QemuIo(Image, "write 0 70k", "write 300k 100k", "write 200k 64k", "discard 310k 40k").Succeeded();
        report = await AssertSameAsQemuImgAsync();
        Assert.True(report.IsConsistent);
    }

    [Fact]
    public async Task Compressed_clusters_snapshots_and_zeros_are_counted_as_qemu_img_does()
    {
        MakeImage("cluster_size=64k", "write -c 0 64k", "write -c -P 3 64k 64k", "write 128k 128k", "write -z 512k 128k");
        CheckReport report = await AssertSameAsQemuImgAsync();
        Assert.Equal((2, 4), (report.CompressedClusters, report.AllocatedClusters));
        Snapshot("first");
        ExternalTool.QemuIo(Image, "write 0 64k", "write 192k 64k", "write -c 1M 64k", "write -z -u 512k 64k").Succeeded();
        Snapshot("second");
        report = await AssertSameAsQemuImgAsync();
        Assert.True(report.IsConsistent);
    }

    [Fact]
    public async Task Bitmaps_are_counted_while_their_feature_bit_is_set()
    {
        MakeImage("cluster_size=64k", "write 0 256k");
        ExternalTool.QemuImg(_directory.Directory, "bitmap", "--add", "--enable", Image, "one").Succeeded();
        ExternalTool.QemuImg(_directory.Directory, "bitmap", "--add", "-g", "512", Image, "two").Succeeded();
        ExternalTool.QemuIo(Image, "write 64k 64k").Succeeded();
        Assert.True((await AssertSameAsQemuImgAsync()).IsConsistent);
        PokeUInt64(Image, 88, 0);
        CheckReport report = await CheckAsync();
        Assert.True(report.LeakCount > 0);
        Assert.Equal(0, report.CorruptionCount);
    }

    [Fact]
    public async Task A_refcount_that_overflows_its_width_is_a_corruption()
    {
        MakeImage("cluster_size=64k,refcount_bits=1", "write 0 256k");
        PokeUInt64(Image, L2Table + 8, 0x8000000000050000);
        await AssertSameAsQemuImgAsync();
    }

    [Fact]
    public async Task A_zero_cluster_in_version_2_is_a_corruption()
    {
        MakeImage("cluster_size=64k,compat=0.10", "write 0 256k");
        PokeUInt64(Image, L2Table + 8, 0x8000000000060001);
        CheckReport report = await CheckAsync();
        Assert.Equal(["ERROR found zero cluster entry in an image of version 2: 8000000000060001"], Messages(report));
    }

    [Fact]
    public async Task Metadata_used_as_data_is_found_even_when_the_refcounts_agree()
    {
        MakeImage("cluster_size=64k", "write 0 256k");
        PokeUInt64(Image, L2Table + 8, 0x0000000000040000); // data in the L2 table
        PokeUInt16(Image, RefcountBlock + (2 * 4), 2);
        PokeUInt16(Image, RefcountBlock + (2 * 6), 0);
        PokeUInt64(Image, L1Table, 0x0000000000040000);
        ExternalTool.QemuImg(_directory.Directory, "check", "-q", "-f", "qcow2", Image).Succeeded();
        CheckReport report = await CheckAsync();
        Assert.Equal(["ERROR cluster 4 is used as L2 table and as data"], Messages(report));
    }

    [Fact]
    public async Task Clusters_without_a_readable_refcount_block_are_check_errors()
    {
        MakeImage("cluster_size=64k", "write 0 256k");
        PokeUInt64(Image, RefcountTable, 0x20200);
        CheckReport report = await CheckAsync();
        Assert.Equal(9, report.CheckErrorCount);
        Assert.Equal("ERROR refcount block 0 is not cluster aligned; refcount table entry corrupted", Messages(report)[0]);
    }

    [Fact]
    public async Task An_unaligned_L2_table_is_reported_and_not_followed()
    {
        MakeImage("cluster_size=64k", "write 0 256k");
        PokeUInt64(Image, L1Table, 0x8000000000040200);
        CheckReport report = await CheckAsync();
        Assert.Equal("ERROR l2_offset=40200: Table is not cluster aligned; L1 entry corrupted", Messages(report)[0]);
        Assert.Equal(0, report.AllocatedClusters);
    }

    [Fact]
    public async Task A_snapshot_table_that_can_not_be_read_ends_the_check()
    {
        MakeImageWithSnapshots();
        PokeUInt32(Image, (long)PeekUInt64(Image, 64) + 36, 2000);
        var error = await Assert.ThrowsAsync<SnapshotTableException>(CheckAsync);
        Assert.StartsWith("ERROR failed to read the snapshot table: Too much extra metadata in snapshot table entry 0\n", error.Message, StringComparison.Ordinal);
    }

    private void MakeImage(string options, params string[] commands)
    {
        ExternalTool.QemuImg(_directory.Directory, "create", "-q", "-f", "qcow2", "-o", options, Image, "4M").Succeeded();
        if (commands.Length > 0)
            ExternalTool.QemuIo(Image, commands).Succeeded();
    }

    private void MakeImageWithSnapshots()
    {
        MakeImage("cluster_size=64k", "write 0 256k");
        Snapshot("first");
        ExternalTool.QemuIo(Image, "write 0 128k").Succeeded();
        Snapshot("second");
    }

    private void Snapshot(string name) =>
        ExternalTool.QemuImg(_directory.Directory, "snapshot", "-c", name, Image).Succeeded();

    private async Task<CheckReport> CheckAsync()
    {
        await using var file = LocalBlockFile.Open(Image, ImageAccess.Read);
        return await ImageCheck.RunAsync(file, new CheckOptions { MaxKeptFindings = 100_000 });
    }

    private static string[] Messages(CheckReport report) => [.. report.Findings.Select(f => f.Message)];

    private async Task<CheckReport> AssertSameAsQemuImgAsync()
    {
        ToolResult theirs = ExternalTool.QemuImg(_directory.Directory, "check", "-f", "qcow2", "--output=json", Image);
        CheckReport ours = await CheckAsync();
        string[] messages = [.. ours.Findings.SelectMany(f => f.Message.Split('\n'))];
        Assert.Equal(theirs.Errors.Split('\n', StringSplitOptions.RemoveEmptyEntries), messages);
        using var json = System.Text.Json.JsonDocument.Parse(theirs.Output);
        long Field(string name) => json.RootElement.TryGetProperty(name, out var value) ? value.GetInt64() : 0;
        Assert.Equal(Field("corruptions"), ours.CorruptionCount);
        Assert.Equal(Field("leaks"), ours.LeakCount);
        Assert.Equal(Field("check-errors"), ours.CheckErrorCount);
        Assert.Equal(Field("image-end-offset"), ours.ImageEndOffset);
        Assert.Equal(Field("total-clusters"), ours.TotalClusters);
        Assert.Equal(Field("allocated-clusters"), ours.AllocatedClusters);
        Assert.Equal(Field("fragmented-clusters"), ours.FragmentedClusters);
        Assert.Equal(Field("compressed-clusters"), ours.CompressedClusters);
        return ours;
    }
}
