using Microsoft.Win32.SafeHandles;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Qcow2.Tests.Io;

/// <summary>Reads of a real file that leave the caller's thread.</summary>
public sealed class BlockingReadsTests : IDisposable
{
    // More than a file reads on the caller's thread.
    private const int LargeBytes = 300_000;

    private readonly string _path = Path.GetTempFileName();

    public void Dispose() => File.Delete(_path);

    [Fact]
    public async Task Many_large_reads_at_once_bring_the_bytes_and_zeros_past_the_end()
    {
        byte[] contents = new byte[2 * LargeBytes];
        new Random(1).NextBytes(contents);
        File.WriteAllBytes(_path, contents);
        await using var file = LocalBlockFile.Open(_path, ImageAccess.Read);
        await Parallel.ForAsync(0, 200, async (i, _) =>
        {
            byte[] buffer = new byte[LargeBytes];
            Array.Fill(buffer, (byte)0xee);
            int offset = i * 2_500;
            await file.ReadAsync(offset, buffer);
            int within = Math.Min(LargeBytes, contents.Length - offset);
            Assert.True(buffer.AsSpan(0, within).SequenceEqual(contents.AsSpan(offset, within)));
            Assert.False(buffer.AsSpan(within).ContainsAnyExcept((byte)0));
        });
    }

    [Fact]
    public async Task A_file_that_is_closed_during_a_read_keeps_its_descriptor_until_the_read_is_over()
    {
        using SafeFileHandle handle = File.OpenHandle(_path);
        string descriptor = $"/proc/self/fd/{handle.DangerousGetHandle()}";
        using var isClosed = new ManualResetEventSlim();
        string? openFile = null;
        var reads = new BlockingReads(new IoLane(handle, width: 4), (_, _) =>
        {
            isClosed.Wait();
            openFile = File.ResolveLinkTarget(descriptor, returnFinalTarget: false)?.FullName;
        });
        ValueTask read = reads.StartAsync(0, new byte[1]);
        handle.Dispose();
        isClosed.Set();
        await read;
        Assert.Equal(_path, openFile);
        await Assert.ThrowsAsync<ObjectDisposedException>(async () => await reads.StartAsync(0, new byte[1]));
    }

    [Fact]
    public async Task A_failed_read_tells_why_and_the_next_one_is_not_the_worse_for_it()
    {
        using SafeFileHandle handle = File.OpenHandle(_path);
        var reads = new BlockingReads(new IoLane(handle, width: 4), (offset, target) =>
        {
            if (offset < 0)
                throw new BlockFileException("reading", _path, 5, "broken");
            target.Fill(7);
        });
        byte[] buffer = new byte[10];
        for (int round = 0; round < 3; round++)
        {
            BlockFileException failure =
                await Assert.ThrowsAsync<BlockFileException>(async () => await reads.StartAsync(-1, buffer));
            Assert.Contains("broken", failure.Message);
            await reads.StartAsync(0, buffer);
            Assert.All(buffer, b => Assert.Equal(7, b));
        }
    }

    [Fact]
    public void A_read_costs_no_allocation()
    {
        using SafeFileHandle handle = File.OpenHandle(_path);
        var reads = new BlockingReads(new IoLane(handle, width: 4), (_, target) => target.Clear());
        byte[] buffer = new byte[10];
        long[] totals = new long[8];
        for (int round = 0; round < totals.Length; round++)
        {
            totals[round] = GC.GetAllocatedBytesForCurrentThread();
            for (int i = 0; i < 1_000; i++)
                ReadOnThisThread(reads, buffer);
        }
        // The queue of the thread pool may grow in some rounds; a cost per read would show in all.
        Assert.Contains(totals.Zip(totals.Skip(1)), round => round.First == round.Second);
    }

    private static void ReadOnThisThread(BlockingReads reads, byte[] buffer)
    {
        ValueTask read = reads.StartAsync(0, buffer);
        while (!read.IsCompleted)
            Thread.Yield();
        read.GetAwaiter().GetResult();
    }
}
