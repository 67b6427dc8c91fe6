using BenchmarkDotNet.Attributes;
using Microsoft.Extensions.DependencyInjection;
using Orleans.TestingHost;
using OrleansDisk.Abstractions;
using OrleansDisk.Grains;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.MicroBenchmarks;

/// <summary>Calls to an image's grain from the same process.</summary>
public class GrainCalls
{
    private readonly ScratchFolder _folder = new();
    private InProcessTestCluster _cluster = null!;
    private IImageGrain _grain = null!;
    private ReadBatch _one = null!;
    private ReadBatch _many = null!;

    [GlobalSetup]
    public async Task Setup()
    {
        await CreateOperation.CreateAsync(_folder.File("disk.qcow2"), new CreateOptions { VirtualBytes = 1L << 30 });
        var builder = new InProcessTestClusterBuilder(1);
        builder.ConfigureSilo((_, silo) => silo.AddImageGrains(
            options => options.Pools["vm"] = new PoolOptions { Directory = _folder.Path }));
        _cluster = builder.Build();
        await _cluster.DeployAsync();
        _grain = _cluster.GetSiloServiceProvider().GetRequiredService<IGrainFactory>().GetGrain<IImageGrain>("vm/disk");
        OpenedImage opened = await _grain.OpenAsync(new OpenImage());
        (_one, _many) = (new ReadBatch(opened, 1), new ReadBatch(opened, 32));
    }

    /// <summary>A call that does next to nothing.</summary>
    [Benchmark]
    public ValueTask<Guid> Call() => _grain.KeepOpenAsync();

    [Benchmark]
    public ValueTask<SectorBatchResult> ReadBatchOf1() => _grain.SubmitAsync(_one.Arm());

    [Benchmark(OperationsPerInvoke = 32)]
    public ValueTask<SectorBatchResult> ReadBatchOf32() => _grain.SubmitAsync(_many.Arm());

    [GlobalCleanup]
    public async Task Clean()
    {
        await _cluster.DisposeAsync();
        _folder.Dispose();
    }

    /// <summary>4 KiB reads that a client in the silo's process sends again and again.</summary>
    private sealed class ReadBatch : ISectorCompletions
    {
        private const int RequestBytes = 4096;

        private readonly SectorBatch _message;
        private readonly byte[] _target;

        public ReadBatch(OpenedImage opened, int count)
        {
            _target = new byte[count * RequestBytes];
            _message = new SectorBatch
            {
                Image = opened.Image,
                Generation = opened.Generation,
                Requests = Enumerable.Range(0, count).Select(i => new SectorRequest
                {
                    Command = SectorCommand.Read,
                    Offset = i * RequestBytes,
                    Bytes = RequestBytes,
                }).ToArray(),
                Completions = this,
            };
        }

        public SectorBatch Arm()
        {
            _message.Arm();
            return _message;
        }

        public Memory<byte> ReadTarget(int index) => _target.AsMemory(index * RequestBytes, RequestBytes);

        public bool AddExtent(int index, SectorExtent extent) => true;

        public void Complete(int index, SectorError error, string? message)
        {
            if (error != SectorError.None)
                throw new InvalidOperationException($"request {index}: {error} {message}");
        }
    }
}
