using BenchmarkDotNet.Attributes;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Concurrency;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.MicroBenchmarks;

/// <summary>4 KiB writes into clusters that are not allocated: reserve, write, link. Each iteration has a new image.</summary>
public class Allocation
{
    private const int Count = 8192;
    private const int ClusterBytes = 64 << 10;

    private readonly byte[] _data = new byte[4096];
    private readonly ImageTurns _turns = new();
    private ScratchFolder _folder = null!;
    private Qcow2Image _image = null!;

    [IterationSetup]
    public void Setup()
    {
        _folder = new ScratchFolder();
        string path = _folder.File("image");
        CreateOperation.CreateAsync(path, new CreateOptions { VirtualBytes = 1L << 30 }).GetAwaiter().GetResult();
        _image = _turns.RunAsync(() => Qcow2Image.OpenAsync(path, new Qcow2OpenOptions { Access = ImageAccess.Write }))
            .GetAwaiter().GetResult();
    }

    [Benchmark(OperationsPerInvoke = Count)]
    public Task AllocateAndWrite() => _turns.RunAsync(async () =>
    {
        for (int i = 0; i < Count; i++)
            await _image.WriteAsync((long)i * ClusterBytes, _data);
    });

    [IterationCleanup]
    public void Clean()
    {
        _turns.RunAsync(async () => await _image.DisposeAsync()).GetAwaiter().GetResult();
        _folder.Dispose();
    }
}
