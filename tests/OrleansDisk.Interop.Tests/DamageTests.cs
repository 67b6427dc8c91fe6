using System.Buffers.Binary;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Check;
using OrleansDisk.Qcow2.Data;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Interop.Tests;

/// <summary>
/// Any byte of an image's metadata may be wrong: the image opens or is refused, reads and writes succeed or fail with an
/// error that says why, and nothing crashes, hangs or takes memory without bound.
/// </summary>
[Collection(MeasuredMemory.Name)]
public sealed class DamageTests
{
    private const long MaxBytesPerCase = 256L << 20;
    private const int SeedCount = 400;
    private int _writableCount;

    public static TheoryData<string, string> Images() => new()
    {
        { "compat=1.1,cluster_size=512,refcount_bits=16", "plain" },
        { "compat=0.10,cluster_size=512", "snapshots" },
        { "compat=1.1,cluster_size=4k,refcount_bits=1", "plain" },
        { "compat=1.1,cluster_size=4k,refcount_bits=64", "snapshots" },
        { "compat=1.1,cluster_size=4k", "compressed" },
        { "compat=1.1,cluster_size=64k", "plain" },
    };

    [Theory]
    [MemberData(nameof(Images))]
    public async Task Damaged_metadata_ends_in_success_or_a_named_error(string options, string content)
    {
        byte[] intact = Make(options, content);
        List<long> targets = MetadataPositions(intact);
        for (int seed = 0; seed < SeedCount; seed++)
        {
            var random = new Random(seed);
            byte[] damaged = [.. intact];
            int count = 1 << random.Next(4);
            for (int i = 0; i < count; i++)
            {
                // The header is small and rich: it gets its share.
                long at = random.Next(4) == 0 ? random.Next(128) : targets[random.Next(targets.Count)];
                damaged[at] = random.Next(3) switch
                {
                    0 => (byte)random.Next(256),
                    1 => (byte)(damaged[at] ^ (1 << random.Next(8))),
                    _ => (byte)(damaged[at] + 1),
                };
            }
            string name = $"{options} {content}, seed {seed}";
            long allocatedBefore = GC.GetTotalAllocatedBytes();
            await Exclusive.Run(() => UseAsync(damaged, seed, name));
            long allocated = GC.GetTotalAllocatedBytes() - allocatedBefore;
            Assert.True(allocated < MaxBytesPerCase, $"{name}: {allocated >> 20} MiB were allocated");
        }
        Assert.True(_writableCount > SeedCount / 4, $"only {_writableCount} damaged images could be opened for writing");
    }

    private async Task UseAsync(byte[] bytes, int seed, string name)
    {
        try
        {
            await TryAsync(() => CheckAsync(bytes));
            await TryAsync(() => ReadAllAsync(bytes));
            await TryAsync(() => WriteSomeAsync(MemoryFile.Load(bytes, new MemoryFile()), seed));
        }
        catch (Exception e)
        {
            throw new InvalidOperationException($"{name}: {e.Message}", e);
        }
    }

    /// <summary>An error of the kinds that callers expect is an answer.</summary>
    private static async Task TryAsync(Func<Task> action)
    {
        try
        {
            await action();
        }
        catch (Exception e) when (e is Qcow2Exception or BlockFileException)
        {
            Assert.NotEmpty(e.Message);
        }
    }

    private static Task<CheckReport> CheckAsync(byte[] bytes) =>
        ImageCheck.RunAsync(MemoryFile.Load(bytes, new MemoryFile { IsReadOnly = true }), new CheckOptions());

    private static async Task ReadAllAsync(byte[] bytes)
    {
        await using Qcow2Image image = await Qcow2Image.OpenAsync(
            MemoryFile.Load(bytes, new MemoryFile { IsReadOnly = true }), new Qcow2OpenOptions { OpenBacking = false });
        byte[] buffer = new byte[64 << 10];
        // A size that is wrong may be very large: its start and its end will do.
        long first = Math.Min(image.VirtualBytes, 1 << 20);
        for (long at = 0; at < first; at += buffer.Length)
            await TryAsync(async () => await image.ReadAsync(at, buffer));
        await TryAsync(async () => await image.ReadAsync(Math.Max(0, image.VirtualBytes - buffer.Length), buffer));
        for (long at = 0; at < first;)
        {
            DiskExtent extent = default;
            await TryAsync(async () => extent = await image.GetExtentAsync(at, first - at));
            at += Math.Max(512, extent.Bytes);
        }
    }

    private async Task WriteSomeAsync(MemoryFile file, int seed)
    {
        var random = new Random(seed);
        Qcow2Image image = await Qcow2Image.OpenAsync(file, Disk.Writing(4096) with { OpenBacking = false });
        _writableCount++;
        try
        {
            for (int i = 0; i < 24; i++)
            {
                int length = (int)Math.Min(1 + random.Next(20_000), image.VirtualBytes);
                long start = random.NextInt64(Math.Max(1, Math.Min(image.VirtualBytes, 1 << 20) - length));
                await TryAsync(async () => await (random.Next(5) switch
                {
                    0 => image.DiscardAsync(start, length),
                    1 => image.WriteZeroesAsync(start, length, mayUnmap: true),
                    2 => image.FlushAsync(),
                    _ => image.WriteAsync(start, new byte[length]),
                }));
            }
            await TryAsync(() => image.ResizeAsync(Math.Min(image.VirtualBytes, 1L << 40) + (1 << 20)));
        }
        finally
        {
            await TryAsync(image.CloseAsync);
        }
    }

    private static byte[] Make(string options, string content)
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = directory.File("disk");
        byte[] data = Disk.MixedBytes(300_000, seed: 6);
        Array.Resize(ref data, 512 << 10);
        File.WriteAllBytes(directory.File("raw"), data);
        string[] compress = content == "compressed" ? ["-c"] : [];
        Tool.Run("qemu-img", ["convert", "-q", .. compress, "-f", "raw", "-O", "qcow2", "-o", options, directory.File("raw"), path]);
        if (content == "snapshots")
        {
            Tool.Run("qemu-img", "snapshot", "-c", "first", path);
            Disk.QemuIo(path, "write -P 0x44 64k 100k");
            Tool.Run("qemu-img", "snapshot", "-c", "second", path);
            Disk.QemuIo(path, "write -P 0x55 100k 30k", "discard 200k 64k");
        }
        return File.ReadAllBytes(path);
    }

    /// <summary>Every byte that a header, table or refcount block of the image holds and that says something.</summary>
    private static List<long> MetadataPositions(byte[] image)
    {
        var positions = new List<long>();
        int clusterBytes = 1 << (int)Word(image, 20);
        long l1 = (long)Entry(image, 40);
        int l1Count = (int)Word(image, 36);
        Add(0, 300);
        Add(l1, l1Count * 8);
        AddTables(l1, l1Count, 0x00ff_ffff_ffff_fe00);
        long refcountTable = (long)Entry(image, 48);
        Add(refcountTable, 64);
        AddTables(refcountTable, (int)Word(image, 56) * clusterBytes / 8, 0xffff_ffff_ffff_fe00);
        if (Word(image, 60) > 0)
            Add((long)Entry(image, 64), 150);
        return positions;

        void Add(long start, int count)
        {
            for (int i = 0; i < count && start + i < image.Length; i++)
                positions.Add(start + i);
        }

        void AddTables(long table, int count, ulong mask)
        {
            for (int i = 0; i < count && table + (i * 8) + 8 <= image.Length; i++)
            {
                if ((Entry(image, table + (i * 8)) & mask) is var offset and not 0)
                    Add((long)offset, Math.Min(clusterBytes, 512));
            }
        }
    }

    private static uint Word(byte[] image, long at) => BinaryPrimitives.ReadUInt32BigEndian(image.AsSpan((int)at));

    private static ulong Entry(byte[] image, long at) => BinaryPrimitives.ReadUInt64BigEndian(image.AsSpan((int)at));
}
