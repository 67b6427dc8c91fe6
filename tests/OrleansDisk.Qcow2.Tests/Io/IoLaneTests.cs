using Microsoft.Win32.SafeHandles;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Qcow2.Tests.Io;

/// <summary>Calls that wait for a disk, on threads of their own.</summary>
public sealed class IoLaneTests : IDisposable
{
    private readonly string _path = Path.GetTempFileName();
    private readonly SafeFileHandle _handle;

    public IoLaneTests() => _handle = File.OpenHandle(_path);

    public void Dispose()
    {
        _handle.Dispose();
        File.Delete(_path);
    }

    [Fact]
    public async Task A_lane_of_one_runs_its_calls_in_order_and_never_two_at_once()
    {
        var lane = new IoLane(_handle, width: 1);
        var order = new List<int>();
        int running = 0;
        bool overlapped = false;
        Task[] calls = [.. Enumerable.Range(0, 500).Select(i => lane.RunAsync(() =>
        {
            overlapped |= Interlocked.Increment(ref running) != 1;
            order.Add(i);
            Interlocked.Decrement(ref running);
        }).AsTask())];
        await Task.WhenAll(calls);
        Assert.False(overlapped);
        Assert.Equal(Enumerable.Range(0, 500), order);
    }

    [Fact]
    public async Task As_many_calls_as_fit_wait_for_the_disk_at_once_and_the_next_one_for_them()
    {
        const int width = 8;
        var lane = new IoLane(_handle, width);
        using var begun = new CountdownEvent(width);
        using var disk = new ManualResetEventSlim();
        Task[] waiting = [.. Enumerable.Range(0, width).Select(_ => lane.RunAsync(() =>
        {
            begun.Signal();
            disk.Wait();
        }).AsTask())];
        begun.Wait();
        Task next = lane.RunAsync(() => { }).AsTask();
        // Another file's calls have threads all the same, and the pool's are not needed.
        await new IoLane(_handle, width: 1).RunAsync(() => { });
        await Task.Run(() => { });
        Assert.False(next.IsCompleted);
        disk.Set();
        await Task.WhenAll(waiting);
        await next;
    }

    [Fact]
    public async Task A_call_that_fails_tells_why_and_the_ones_behind_it_run()
    {
        var lane = new IoLane(_handle, width: 1);
        Task failing = lane.RunAsync(() => throw new BlockFileException("flushing", _path, 5, "broken")).AsTask();
        Task behind = lane.RunAsync(() => { }).AsTask();
        Assert.Contains("broken", (await Assert.ThrowsAsync<BlockFileException>(() => failing)).Message, StringComparison.Ordinal);
        await behind;
    }

    [Fact]
    public async Task A_file_that_is_closed_takes_no_more_calls()
    {
        var lane = new IoLane(_handle, width: 1);
        _handle.Dispose();
        await Assert.ThrowsAsync<ObjectDisposedException>(async () => await lane.RunAsync(() => { }));
    }
}
