using System.Diagnostics;
using System.Reflection;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Concurrency;
using OrleansDisk.Qcow2.Data;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Interop.Tests;

/// <summary>What a request costs the garbage collector, on a file that is in memory.</summary>
[Collection(MeasuredMemory.Name)]
public sealed class AllocationTests
{
    private const int RequestBytes = 4096;
    private const int ClusterBytes = 64 << 10;
    private const int Rounds = 10_000;
    private const long DiskBytes = (long)Rounds * 2 * ClusterBytes;

    [Fact]
    public Task Reads_and_overwrites_under_a_lease_allocate_nothing() => RunAsync((image, turns) =>
    {
        MappingLease? lease = null;
        byte[] buffer = new byte[RequestBytes];
        Turn(turns, () =>
        {
            lease = image.Lease();
            return image.WriteAsync(0, new byte[16 * ClusterBytes]);
        });
        long bytes = Measure(i =>
        {
            long offset = i % 256 * RequestBytes;
            Assert.True(lease!.TryWrite(offset, buffer));
            Assert.True(lease.TryRead(offset, buffer));
        });
        Assert.Equal(0, bytes);
    });

    [Fact]
    public Task Reads_and_overwrites_in_a_turn_on_the_callers_thread_allocate_nothing() => RunAsync((image, turns) =>
    {
        byte[] buffer = new byte[RequestBytes];
        Turn(turns, () => image.WriteAsync(0, new byte[16 * ClusterBytes]));
        long bytes = Measure(i =>
        {
            long offset = i % 256 * RequestBytes;
            Assert.True(turns.TryEnter());
            ValueTask write = image.WriteAsync(offset, buffer);
            ValueTask read = image.ReadAsync(offset, buffer);
            turns.Leave();
            Assert.True(write.IsCompletedSuccessfully && read.IsCompletedSuccessfully);
        });
        Assert.Equal(0, bytes);
    });

    /// <summary>
    /// What remains is the image's own: its L2 slices with their bits (66 KiB for 8192 clusters), a refcount block for
    /// 32768, and lists and hash tables that grow with them. In a debug build the compiler makes every call of an async
    /// method an object.
    /// </summary>
    [Fact]
    public Task A_write_that_allocates_a_cluster_costs_its_part_of_the_new_tables_and_nothing_else() => RunAsync((image, turns) =>
    {
        byte[] buffer = new byte[RequestBytes];
        long bytes = Measure(i =>
        {
            Assert.True(turns.TryEnter());
            ValueTask write = image.WriteAsync(i * (long)ClusterBytes, buffer);
            turns.Leave();
            Assert.True(write.IsCompletedSuccessfully);
        });
        bool isDebug = typeof(Qcow2Image).Assembly.GetCustomAttribute<DebuggableAttribute>()?.IsJITOptimizerDisabled == true;
        Assert.True(bytes < (isDebug ? 1500 : 24) * Rounds, $"{bytes / (double)Rounds} bytes a write");
    });

    /// <summary>Bytes that the second half of twice as many rounds allocates on this thread.</summary>
    private static long Measure(Action<int> round)
    {
        long before = 0;
        for (int i = 0; i < 2 * Rounds; i++)
        {
            if (i == Rounds)
                before = GC.GetAllocatedBytesForCurrentThread();
            round(i);
        }
        return GC.GetAllocatedBytesForCurrentThread() - before;
    }

    private static void Turn(ImageTurns turns, Func<ValueTask> turn) =>
        turns.RunAsync(async () => await turn()).GetAwaiter().GetResult();

    private static async Task RunAsync(Action<Qcow2Image, ImageTurns> scenario)
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = directory.File("disk");
        await CreateOperation.CreateAsync(path, new CreateOptions { VirtualBytes = DiskBytes, ClusterBytes = ClusterBytes });
        var turns = new ImageTurns();
        Qcow2Image image = await turns.RunAsync(() => Qcow2Image.OpenAsync(path, new Qcow2OpenOptions { Access = ImageAccess.Write }));
        // A thread of its own: nothing else that runs here may be counted.
        await Task.Factory.StartNew(
            () => scenario(image, turns), CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default);
        await turns.RunAsync(() => image.CloseAsync());
        await Judge.FindsCleanAsync(path);
    }
}
