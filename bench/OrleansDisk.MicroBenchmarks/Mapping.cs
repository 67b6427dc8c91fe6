using BenchmarkDotNet.Attributes;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Qcow2.Metadata;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.MicroBenchmarks;

/// <summary>From a guest cluster to its L2 entry, all tables in memory: 128 MiB of them for 1 TiB.</summary>
public class Mapping
{
    private const int Count = 4096;

    private readonly ScratchFolder _folder = new();
    private readonly GuestCluster[] _clusters = new GuestCluster[Count];
    private LocalBlockFile _file = null!;
    private ImageMetadata _metadata = null!;

    /// <summary>What the clusters that are looked up are spread over.</summary>
    [Params(512L << 20, 1L << 40)]
    public long RangeBytes { get; set; }

    [GlobalSetup]
    public async Task Setup()
    {
        string path = _folder.File("image");
        await CreateOperation.CreateAsync(path, new CreateOptions { VirtualBytes = RangeBytes, Preallocation = Preallocation.Metadata });
        _file = LocalBlockFile.Open(path, ImageAccess.Read);
        _metadata = await ImageMetadata.LoadAsync(
            _file, externalDataFile: null, await HeaderReader.ReadAsync(_file), new Qcow2OpenOptions { L2CacheBytes = 256 << 20 });
        long clusters = RangeBytes / _metadata.Geometry.ClusterBytes;
        var random = new Random(1);
        for (int i = 0; i < Count; i++)
            _clusters[i] = new GuestCluster(random.NextInt64(clusters));
        long clustersPerTable = _metadata.Geometry.ClusterBytes / sizeof(ulong);
        for (long first = 0; first < clusters; first += clustersPerTable)
            (await _metadata.L2Tables.PinAsync(new GuestCluster(first))).Dispose();
    }

    [Benchmark(OperationsPerInvoke = Count)]
    public long LookUpEntry()
    {
        long sum = 0;
        foreach (GuestCluster cluster in _clusters)
        {
            if (_metadata.L2Tables.TryGet(cluster, out CachedTable table))
                sum += _metadata.L2Tables.Read(table, cluster).Host.Bytes;
        }
        return sum;
    }

    [GlobalCleanup]
    public async Task Clean()
    {
        await _file.DisposeAsync();
        _folder.Dispose();
    }
}
