using BenchmarkDotNet.Attributes;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Concurrency;
using OrleansDisk.Qcow2.Data;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.MicroBenchmarks;

/// <summary>4 KiB requests to an image in memory, without a server: what the engine adds to pread and pwrite.</summary>
public class Requests
{
    private const int Count = 1024;
    private const int RequestBytes = 4096;
    private const int ClusterBytes = 64 << 10;

    private readonly ScratchFolder _folder = new();
    private readonly byte[] _buffer = GC.AllocateArray<byte>(RequestBytes, pinned: true);
    private readonly ImageTurns _turns = new();
    private Qcow2Image _image = null!;
    private MappingLease _lease = null!;
    private LocalBlockFile _file = null!;

    [GlobalSetup]
    public async Task Setup()
    {
        string path = _folder.File("image");
        await CreateOperation.CreateAsync(path, new CreateOptions { VirtualBytes = 1L << 30 });
        _image = await _turns.RunAsync(() => Qcow2Image.OpenAsync(path, new Qcow2OpenOptions { Access = ImageAccess.Write }));
        for (int i = 0; i < Count; i++)
            await _turns.RunAsync(async () => await _image.WriteAsync((long)i * ClusterBytes, _buffer));
        _lease = _image.Lease();
        string plain = _folder.File("plain");
        await File.WriteAllBytesAsync(plain, new byte[Count * RequestBytes]);
        _file = LocalBlockFile.Open(plain, ImageAccess.Read);
    }

    /// <summary>Without a format: the measure of the others.</summary>
    [Benchmark(OperationsPerInvoke = Count)]
    public void ReadPlainFile()
    {
        for (int i = 0; i < Count; i++)
            _file.TryRead((long)i * RequestBytes, _buffer);
    }

    [Benchmark(OperationsPerInvoke = Count)]
    public int ReadByLease()
    {
        int done = 0;
        for (int i = 0; i < Count; i++)
            done += _lease.TryRead((long)i * ClusterBytes, _buffer) ? 1 : 0;
        return done == Count ? done : throw new InvalidOperationException("the lease did not cover a read");
    }

    [Benchmark(OperationsPerInvoke = Count)]
    public int WriteByLease()
    {
        int done = 0;
        for (int i = 0; i < Count; i++)
            done += _lease.TryWrite((long)i * ClusterBytes, _buffer) ? 1 : 0;
        return done == Count ? done : throw new InvalidOperationException("the lease did not cover a write");
    }

    /// <summary>A turn of its own for each request, on the caller's thread.</summary>
    [Benchmark(OperationsPerInvoke = Count)]
    public void ReadInTurns()
    {
        for (int i = 0; i < Count; i++)
        {
            if (!_turns.TryEnter() || !HasCompleted(_image.ReadAsync((long)i * ClusterBytes, _buffer)))
                throw new InvalidOperationException("the request did not complete at once");
            _turns.Leave();
        }
    }

    [Benchmark(OperationsPerInvoke = Count)]
    public void WriteInTurns()
    {
        for (int i = 0; i < Count; i++)
        {
            if (!_turns.TryEnter() || !HasCompleted(_image.WriteAsync((long)i * ClusterBytes, _buffer)))
                throw new InvalidOperationException("the request did not complete at once");
            _turns.Leave();
        }
    }

    [Benchmark(OperationsPerInvoke = Count)]
    public void EmptyTurn()
    {
        for (int i = 0; i < Count; i++)
        {
            if (_turns.TryEnter())
                _turns.Leave();
        }
    }

    private static bool HasCompleted(ValueTask request) => request.IsCompletedSuccessfully;

    [GlobalCleanup]
    public async Task Clean()
    {
        _lease.Dispose();
        await _turns.RunAsync(async () => await _image.DisposeAsync());
        await _file.DisposeAsync();
        _folder.Dispose();
    }
}
