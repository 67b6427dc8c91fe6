using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Qcow2.Tests.Create;

public sealed class CreateOperationTests : IDisposable
{
    private readonly TemporaryDirectory _directory = new();

    public void Dispose() => _directory.Dispose();

    public static TheoryData<string, long, string> Matrix()
    {
        var data = new TheoryData<string, long, string>();
        foreach (int cluster in (int[])[512, 1024, 4096, 8192, 65536, 2 << 20])
        {
            foreach (string size in (string[])["0", "1", "513", "1M", "20M"])
                data.Add(size, cluster, "");
            data.Add("1G", cluster, "compat=0.10");
            data.Add("700M", cluster, "lazy_refcounts=on");
        }
        foreach (int bits in (int[])[1, 2, 4, 8, 32, 64])
        {
            data.Add("3M", 512, $"refcount_bits={bits}");
            data.Add("1M", 65536, $"refcount_bits={bits}");
            data.Add("1M", 512, $"refcount_bits={bits},preallocation=metadata");
        }
        foreach (int cluster in (int[])[512, 1024, 4096, 65536, 2 << 20])
            data.Add("7M", cluster, "preallocation=metadata");
        data.Add("2100M", 65536, "preallocation=metadata");
        data.Add("9G", 1 << 20, "preallocation=metadata");
        data.Add("600G", 2 << 20, "preallocation=metadata,refcount_bits=64");
        data.Add("1G", 512, "");
        return data;
    }

    [Theory]
    [MemberData(nameof(Matrix))]
    public async Task A_new_image_is_qemu_imgs_byte_for_byte(string size, long clusterBytes, string options)
    {
        string all = string.Join(',', new[] { $"cluster_size={clusterBytes}", options }.Where(o => o != ""));
        ExternalTool.QemuImg(_directory.Directory, "create", "-q", "-f", "qcow2", "-o", all, "theirs", size).Succeeded();
        await CreateAsync("ours", new CreateOptions
        {
            VirtualBytes = ParseSize(size),
            ClusterBytes = clusterBytes,
            Version = options.Contains("compat=0.10", StringComparison.Ordinal) ? 2 : 3,
            LazyRefcounts = options.Contains("lazy", StringComparison.Ordinal),
            RefcountBits = options.Contains("refcount_bits=", StringComparison.Ordinal)
                ? long.Parse(options[(options.IndexOf("refcount_bits=", StringComparison.Ordinal) + 14)..].Split(',')[0])
                : 16,
            Preallocation = options.Contains("preallocation", StringComparison.Ordinal)
                ? Preallocation.Metadata : Preallocation.Off,
        });
        await AssertSameFileAsync("ours", "theirs");
        ExternalTool.QemuImg(_directory.Directory, "check", "-q", "-f", "qcow2", "ours").Succeeded();
    }

    [Theory]
    [InlineData(2, 65536)]
    [InlineData(3, 65536)]
    [InlineData(3, 4096)]
    [InlineData(3, 512)]
    public async Task The_backing_file_is_recorded_as_qemu_img_does(int version, long clusterBytes)
    {
        string options = $"cluster_size={clusterBytes},compat={(version == 2 ? "0.10" : "1.1")}";
        ExternalTool.QemuImg(_directory.Directory, "create", "-q", "-u", "-f", "qcow2", "-b", "dir/bäse.img", "-F", "raw",
            "-o", options, "theirs", "3M").Succeeded();
        await CreateAsync("ours", new CreateOptions
        {
            VirtualBytes = 3 << 20,
            Version = version,
            ClusterBytes = clusterBytes,
            BackingFile = "dir/bäse.img",
            BackingFormat = "raw",
        });
        await AssertSameFileAsync("ours", "theirs");
    }

    [Theory]
    [InlineData("20M", "cluster_size=512")]
    [InlineData("140M", "cluster_size=512,refcount_bits=64")]
    [InlineData("64M", "cluster_size=1024,refcount_bits=32")]
    public async Task A_preallocated_image_that_needs_a_longer_refcount_table_is_sound(string size, string options)
    {
        bool is64 = options.Contains("=64", StringComparison.Ordinal);
        bool is32 = options.Contains("=32", StringComparison.Ordinal);
        Header header = await CreateAsync("ours", new CreateOptions
        {
            VirtualBytes = ParseSize(size),
            ClusterBytes = options.Contains("512", StringComparison.Ordinal) ? 512 : 1024,
            RefcountBits = is64 ? 64 : is32 ? 32 : 16,
            Preallocation = Preallocation.Metadata,
        });
        Assert.True(header.RefcountTableClusters > 1);
        ToolResult check = ExternalTool.QemuImg(_directory.Directory, "check", "-f", "qcow2", "ours").Succeeded();
        Assert.Contains("= 100.00% allocated, 0.00% fragmented", check.Output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_disk_as_large_as_the_l1_table_allows_is_sound()
    {
        await CreateAsync("ours", new CreateOptions { VirtualBytes = 128L << 30, ClusterBytes = 512, RefcountBits = 64 });
        ExternalTool.QemuImg(_directory.Directory, "check", "-q", "-f", "qcow2", "ours").Succeeded();
    }

    [Theory]
    [InlineData(3000, 16, 3, 1L << 30, "Cluster size must be a power of two between 512 and 2048k")]
    [InlineData(256, 16, 3, 1L << 30, "Cluster size must be a power of two between 512 and 2048k")]
    [InlineData(4 << 20, 16, 3, 1L << 30, "Cluster size must be a power of two between 512 and 2048k")]
    [InlineData(65536, 3, 3, 1L << 30, "Refcount width must be a power of two and may not exceed 64 bits")]
    [InlineData(65536, 0, 3, 1L << 30, "Refcount width must be a power of two and may not exceed 64 bits")]
    [InlineData(65536, 128, 3, 1L << 30, "Refcount width must be a power of two and may not exceed 64 bits")]
    [InlineData(65536, 8, 2, 1L << 30, "Different refcount widths than 16 bits require compatibility level 1.1")]
    [InlineData(512, 16, 3, 129L << 30, "The image size is too large for file format 'qcow2'")]
    [InlineData(65536, 16, 3, 3L << 50, "The image size is too large for file format 'qcow2'")]
    [InlineData(2 << 20, 16, 3, long.MaxValue, "The image size is too large for file format 'qcow2'")]
    public async Task Options_that_cannot_be_had_are_refused_and_the_file_stays(
        long clusterBytes, long refcountBits, int version, long virtualBytes, string message)
    {
        byte[] before = [1, 2, 3];
        var file = new MemoryBlockFile(before);
        Qcow2Exception error = await Assert.ThrowsAsync<Qcow2Exception>(() => CreateOperation.CreateAsync(file, new CreateOptions
        {
            VirtualBytes = virtualBytes,
            ClusterBytes = clusterBytes,
            RefcountBits = refcountBits,
            Version = version,
        }));
        Assert.StartsWith(message, error.Message, StringComparison.Ordinal);
        Assert.Equal(before, file.Bytes);
    }

    [Fact]
    public async Task A_backing_file_name_that_does_not_fit_is_refused_and_the_file_stays()
    {
        var file = new MemoryBlockFile([7]);
        var options = new CreateOptions { VirtualBytes = 512, ClusterBytes = 512, BackingFile = new string('x', 500) };
        Qcow2Exception error = await Assert.ThrowsAsync<Qcow2Exception>(() => CreateOperation.CreateAsync(file, options));
        Assert.Equal("Backing file name too long", error.Message);
        Assert.Equal([7], file.Bytes);
    }

    [Fact]
    public async Task Version_2_is_refused_zstd()
    {
        var options = new CreateOptions { VirtualBytes = 512, Version = 2, CompressionType = CompressionType.Zstd };
        Qcow2Exception error = await Assert.ThrowsAsync<Qcow2Exception>(
            () => CreateOperation.CreateAsync(new MemoryBlockFile([]), options));
        Assert.Contains("Non-zlib compression type", error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(Preallocation.Off)]
    [InlineData(Preallocation.Metadata)]
    public async Task A_create_that_stops_at_any_write_leaves_no_image(Preallocation preallocation)
    {
        var options = new CreateOptions { VirtualBytes = 1 << 20, ClusterBytes = 512, Preallocation = preallocation };
        var old = new MemoryBlockFile([]);
        await CreateOperation.CreateAsync(old, options with { VirtualBytes = 4096 });
        for (int stopAt = 1; ; stopAt++)
        {
            int writes = 0;
            var file = new MemoryBlockFile([.. old.Bytes])
            {
                OnWrite = _ =>
                {
                    if (++writes == stopAt)
                        throw new IOException("stopped");
                },
            };
            try
            {
                await CreateOperation.CreateAsync(file, options);
                Assert.True(stopAt > 2);
                return;
            }
            catch (IOException)
            {
                Assert.False(Header.Probe(file.Bytes), $"stopped at write {stopAt}");
            }
        }
    }

    private async Task<Header> CreateAsync(string name, CreateOptions options)
    {
        await using var file = LocalBlockFile.Create(_directory.File(name));
        return await CreateOperation.CreateAsync(file, options);
    }

    /// <summary>Compares the parts of two sparse files that hold data in either of them.</summary>
    private async Task AssertSameFileAsync(string ours, string theirs)
    {
        await using var first = LocalBlockFile.Open(_directory.File(ours), ImageAccess.Read);
        await using var second = LocalBlockFile.Open(_directory.File(theirs), ImageAccess.Read);
        Assert.Equal(second.LengthBytes, first.LengthBytes);
        byte[] a = new byte[1 << 20];
        byte[] b = new byte[1 << 20];
        for (long at = 0; at < first.LengthBytes;)
        {
            FileExtent extentOfFirst = first.GetExtent(at, first.LengthBytes);
            FileExtent extentOfSecond = second.GetExtent(at, first.LengthBytes);
            long bytes = Math.Min(extentOfFirst.Bytes, extentOfSecond.Bytes);
            if (extentOfFirst.IsData || extentOfSecond.IsData)
            {
                bytes = Math.Min(bytes, a.Length);
                await first.ReadAsync(at, a.AsMemory(0, (int)bytes));
                await second.ReadAsync(at, b.AsMemory(0, (int)bytes));
                int same = a.AsSpan(0, (int)bytes).CommonPrefixLength(b.AsSpan(0, (int)bytes));
                Assert.True(same == bytes, $"the files differ at byte {at + same}");
            }
            at += bytes;
        }
    }

    private static long ParseSize(string size) => size[^1] switch
    {
        'M' => long.Parse(size[..^1]) << 20,
        'G' => long.Parse(size[..^1]) << 30,
        _ => long.Parse(size),
    };
}
