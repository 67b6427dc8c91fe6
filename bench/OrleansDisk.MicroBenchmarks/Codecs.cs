using BenchmarkDotNet.Attributes;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.MicroBenchmarks;

/// <summary>What lies on disk, decoded and encoded.</summary>
public class Codecs
{
    private byte[] _cluster = [];
    private readonly ClusterGeometry _geometry = new(16, 4);
    private readonly ulong[] _entries = [.. Enumerable.Range(1, 1024).Select(i => 1UL << 63 | (ulong)i << 16)];

    [GlobalSetup]
    public async Task Setup()
    {
        using var folder = new ScratchFolder();
        string path = folder.File("image");
        await CreateOperation.CreateAsync(path, new CreateOptions { VirtualBytes = 1L << 30 });
        _cluster = await File.ReadAllBytesAsync(path);
        Array.Resize(ref _cluster, 64 << 10);
    }

    [Benchmark]
    public Header ParseHeader() => Header.Parse(_cluster);

    /// <summary>One entry of a table of 1024: its kind, its host offset, whether it may be written in place.</summary>
    [Benchmark(OperationsPerInvoke = 1024)]
    public long DecodeL2Entry()
    {
        long sum = 0;
        foreach (ulong raw in _entries)
        {
            var entry = new L2Entry(raw);
            if (entry.IsCopied && entry.Kind(_geometry) == ClusterKind.Data)
                sum += entry.Host.Bytes;
        }
        return sum;
    }
}

/// <summary>Refcounts of every width.</summary>
public class Refcounts
{
    private const int Count = 1024;

    private readonly byte[] _block = new byte[64 << 10];

    [Params(1, 2, 4, 8, 16, 32, 64)]
    public int Bits { get; set; }

    private int Order => System.Numerics.BitOperations.Log2((uint)Bits);

    [Benchmark(OperationsPerInvoke = Count)]
    public ulong Get()
    {
        ulong sum = 0;
        int order = Order;
        for (int i = 0; i < Count; i++)
            sum += RefcountBlock.Get(_block, order, i);
        return sum;
    }

    [Benchmark(OperationsPerInvoke = Count)]
    public void Set()
    {
        int order = Order;
        for (int i = 0; i < Count; i++)
            RefcountBlock.Set(_block, order, i, 1);
    }

    /// <summary>The first free cluster of a block that is full but for the last one.</summary>
    [Benchmark]
    public int FindFree() => RefcountBlock.IndexOfFree(_block, Order, 0);

    [GlobalSetup(Target = nameof(FindFree))]
    public void Fill()
    {
        int count = (_block.Length << 3 >> Order) - 1;
        for (int i = 0; i < count; i++)
            RefcountBlock.Set(_block, Order, i, 1);
    }
}
