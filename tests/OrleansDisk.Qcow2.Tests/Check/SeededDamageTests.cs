using System.Buffers.Binary;
using OrleansDisk.Qcow2.Check;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Qcow2.Tests.Check;

/// <summary>Whatever the bytes of an image are, a check ends with a report or a named error, soon and in little memory.</summary>
public sealed class SeededDamageTests : IDisposable
{
    private const long MemoryLimitBytes = 256L << 20;

    private readonly TemporaryDirectory _directory = new();

    public void Dispose() => _directory.Dispose();

    [Theory]
    [InlineData(1, "cluster_size=512")]
    [InlineData(2, "cluster_size=512,refcount_bits=1")]
    [InlineData(3, "cluster_size=4k,refcount_bits=64")]
    [InlineData(4, "cluster_size=64k")]
    [InlineData(5, "cluster_size=64k,compat=0.10")]
    public async Task Mutated_images_end_in_a_report_or_a_named_error(int seed, string options)
    {
        byte[] sound = MakeImage(options);
        var random = new Random(seed);
        int reports = 0;
        for (int round = 0; round < 300; round++)
        {
            byte[] bytes = [.. sound];
            Mutate(bytes, random);
            if (await RunAsync(bytes, $"seed {seed} round {round}") is not null)
                reports++;
        }
        Assert.True(reports > 100, $"only {reports} images got as far as a report");
    }

    [Fact]
    public async Task Truncated_images_end_in_a_report_or_a_named_error()
    {
        byte[] sound = MakeImage("cluster_size=512");
        for (int length = 0; length < sound.Length; length += length < 2048 ? 7 : 1021)
            await RunAsync(sound[..length], $"length {length}");
    }

    [Fact]
    public async Task A_table_that_names_itself_everywhere_costs_little()
    {
        // 64 KiB clusters; L1 table of 65,536 entries at cluster 3, all naming the same L2 table, all whose entries
        // name one data cluster; 5,000 snapshots that name the same L1 table.
        byte[] bytes = new byte[32 << 16];
        MakeImage("cluster_size=64k").AsSpan(0, 1 << 16).CopyTo(bytes);
        BinaryPrimitives.WriteUInt32BigEndian(bytes.AsSpan(36), 65536);
        BinaryPrimitives.WriteUInt32BigEndian(bytes.AsSpan(60), 5000);
        BinaryPrimitives.WriteUInt64BigEndian(bytes.AsSpan(64), 20 << 16);
        for (int i = 0; i < 65536; i++)
            BinaryPrimitives.WriteUInt64BigEndian(bytes.AsSpan((3 << 16) + (8 * i)), 16 << 16);
        for (int i = 0; i < 8192; i++)
            BinaryPrimitives.WriteUInt64BigEndian(bytes.AsSpan((16 << 16) + (8 * i)), 17 << 16);
        for (int i = 0; i < 5000; i++)
        {
            BinaryPrimitives.WriteUInt64BigEndian(bytes.AsSpan((20 << 16) + (40 * i)), 3 << 16);
            BinaryPrimitives.WriteUInt32BigEndian(bytes.AsSpan((20 << 16) + (40 * i) + 8), 65536);
        }
        CheckReport report = Assert.IsType<CheckReport>(await RunAsync(bytes, "self-referencing"));
        Assert.True(report.CorruptionCount > 0);
    }

    [Fact]
    public async Task A_file_that_seems_endless_is_checked_by_what_it_holds()
    {
        string path = _directory.File("sparse.qcow2");
        ExternalTool.QemuImg(_directory.Directory, "create", "-q", "-f", "qcow2", path, "64T").Succeeded();
        ExternalTool.QemuIo(path, "write 0 64k", "write 60T 64k").Succeeded();
        using (FileStream stream = File.OpenWrite(path))
            stream.SetLength(8L << 40);
        await using var file = LocalBlockFile.Open(path, ImageAccess.Read);
        CheckReport report = await WithinLimitsAsync(() => ImageCheck.RunAsync(file, new CheckOptions()), "sparse");
        Assert.True(report.IsConsistent);
        Assert.Equal(2, report.AllocatedClusters);
    }

    private byte[] MakeImage(string options)
    {
        string path = _directory.File("sound.qcow2");
        ExternalTool.QemuImg(_directory.Directory, "create", "-q", "-f", "qcow2", "-o", options, path, "2M").Succeeded();
        ExternalTool.QemuIo(path, "write 0 100k", "write -z 128k 64k", "write -c 256k 64k").Succeeded();
        if (!options.Contains("refcount_bits=1", StringComparison.Ordinal))
        {
            ExternalTool.QemuImg(_directory.Directory, "snapshot", "-c", "one", path).Succeeded();
            ExternalTool.QemuIo(path, "write 32k 64k").Succeeded();
        }
        return File.ReadAllBytes(path);
    }

    /// <summary>Changes a few places, mostly in the first clusters, where the tables are.</summary>
    private static void Mutate(byte[] bytes, Random random)
    {
        for (int change = random.Next(1, 8); change > 0; change--)
        {
            int area = random.Next(4) switch { 0 => 112, 1 => 4096, 2 => Math.Min(bytes.Length, 0x60000), _ => bytes.Length };
            int at = random.Next(area);
            switch (random.Next(4))
            {
                case 0:
                    bytes[at] = (byte)random.Next(256);
                    break;
                case 1:
                    bytes[at] ^= (byte)(1 << random.Next(8));
                    break;
                case 2:
                    random.NextBytes(bytes.AsSpan(at, Math.Min(8, bytes.Length - at)));
                    break;
                default:
                    int from = random.Next(bytes.Length);
                    int count = Math.Min(random.Next(1, 1024), bytes.Length - Math.Max(at, from));
                    bytes.AsSpan(from, count).ToArray().CopyTo(bytes, at);
                    break;
            }
        }
    }

    private static async Task<CheckReport?> RunAsync(byte[] bytes, string what)
    {
        try
        {
            await ImageInfo.ReadAsync(new MemoryBlockFile(bytes), "qcow2");
        }
        catch (Exception e) when (e is Qcow2FormatException or Qcow2UnsupportedException)
        {
            // As good an answer as a list of facts.
        }
        try
        {
            return await WithinLimitsAsync(() => ImageCheck.RunAsync(new MemoryBlockFile(bytes), new CheckOptions()), what);
        }
        catch (Exception e) when (e is Qcow2FormatException or Qcow2UnsupportedException)
        {
            return null;
        }
    }

    private static async Task<CheckReport> WithinLimitsAsync(Func<Task<CheckReport>> check, string what)
    {
        long before = GC.GetAllocatedBytesForCurrentThread();
        CheckReport report = await check();
        long allocated = GC.GetAllocatedBytesForCurrentThread() - before;
        Assert.True(allocated < MemoryLimitBytes, $"{what}: {allocated} bytes allocated");
        return report;
    }
}
