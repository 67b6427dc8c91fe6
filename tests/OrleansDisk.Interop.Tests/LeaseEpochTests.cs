using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Data;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Interop.Tests;

/// <summary>
/// A session stands in the middle of a read or write under its lease while the image changes the mapping beneath it
/// (docs/consistency.md, W5). Without "Leases.HasDrained(epoch)" in RequestGate.HasDrained the first two tests fail;
/// without the wait at the end of RequestGate.EnterExclusiveAsync the last ones do.
/// </summary>
public sealed class LeaseEpochTests
{
    private const int ClusterBytes = 4096;

    [Fact]
    public Task A_cluster_that_a_lease_is_reading_is_neither_reused_nor_given_back() => Run(async (image, file) =>
    {
        byte[] data = Filled(1);
        await image.WriteAsync(0, data);
        long host = await HostOffsetAsync(image, 0);
        byte[] seen = new byte[ClusterBytes];
        using (var stay = new Stay(image, file, host, lease => lease.TryRead(0, seen)))
        {
            await ReuseAsync(image, avoiding: host);
            Assert.False(stay.HasPunched);
            // Nobody asks anything of the image any more: that the session leaves must be enough.
            await stay.EndAsync();
            await stay.Punched;
        }
        Assert.Equal(data, seen);
    });

    [Fact]
    public Task A_cluster_that_a_lease_is_writing_is_neither_reused_nor_given_back() => Run(async (image, file) =>
    {
        await image.WriteAsync(0, Filled(1));
        long host = await HostOffsetAsync(image, 0);
        using (var stay = new Stay(image, file, host, lease => lease.TryWrite(0, Filled(9))))
        {
            await ReuseAsync(image, avoiding: host);
            Assert.False(stay.HasPunched);
            await stay.EndAsync();
            await stay.Punched;
        }
        byte[] read = new byte[ClusterBytes];
        for (int i = 0; i < 16; i++)
        {
            await image.ReadAsync((8 + i) * ClusterBytes, read);
            Assert.Equal(Filled((byte)(2 + i)), read);
        }
        await image.ReadAsync(0, read);
        Assert.Equal(new byte[ClusterBytes], read);
    });

    [Fact]
    public Task A_session_that_entered_after_a_cluster_was_freed_does_not_keep_it() => Run(async (image, file) =>
    {
        await image.WriteAsync(0, Filled(1));
        await image.WriteAsync(ClusterBytes, Filled(2));
        long freed = await HostOffsetAsync(image, 0);
        long host = await HostOffsetAsync(image, ClusterBytes);
        await image.DiscardAsync(0, ClusterBytes);
        await image.FlushAsync();
        using var stay = new Stay(image, file, host, lease => lease.TryRead(ClusterBytes, new byte[ClusterBytes]));
        while (await HostOffsetAsync(image, 8 * ClusterBytes) != freed)
        {
            await image.DiscardAsync(8 * ClusterBytes, ClusterBytes);
            await image.FlushAsync();
            await image.WriteAsync(8 * ClusterBytes, Filled(3));
        }
        await stay.EndAsync();
    });

    [Fact]
    public Task Growing_waits_for_sessions_and_refuses_new_ones() => AloneAsync(image => image.ResizeAsync(8 << 20), comesBack: true);

    [Fact]
    public Task Settling_waits_for_sessions_and_refuses_new_ones() =>
        AloneAsync(image => image.RunSettledAsync(_ => Task.CompletedTask), comesBack: true);

    [Fact]
    public Task Closing_waits_for_sessions_and_refuses_new_ones() => AloneAsync(image => image.CloseAsync(), comesBack: false);

    private static Task AloneAsync(Func<Qcow2Image, Task> operation, bool comesBack) => Run(async (image, file) =>
    {
        await image.WriteAsync(0, Filled(1));
        await image.FlushAsync();
        long host = await HostOffsetAsync(image, 0);
        using MappingLease lease = image.Lease();
        byte[] read = new byte[ClusterBytes];
        Assert.True(lease.TryRead(0, read));
        using var stay = new Stay(image, file, host, other => other.TryWrite(0, Filled(9)));
        int operations = 0;
        file.Fault = stay.Watch(() => operations++);
        Task alone = operation(image);
        for (int i = 0; i < 1000; i++)
            await Task.Yield(); // the image's scheduler is free, and whatever could go on would
        Assert.False(alone.IsCompleted);
        Assert.Equal(0, operations);
        Assert.False(lease.TryRead(0, read));
        Assert.False(lease.TryWrite(0, read));
        await stay.EndAsync();
        await alone;
        Assert.True(operations > 0, "what the session wrote was not written back");
        Assert.Equal(comesBack, lease.TryRead(0, read));
        if (comesBack)
            Assert.Equal(Filled(9), read);
    });

    /// <summary>Gives the image every reason to use the cluster of the first guest cluster again.</summary>
    private static async Task ReuseAsync(Qcow2Image image, long avoiding)
    {
        await image.DiscardAsync(0, ClusterBytes);
        for (int i = 0; i < 16; i++)
        {
            await image.FlushAsync();
            await image.WriteAsync((8 + i) * ClusterBytes, Filled((byte)(2 + i)));
            Assert.NotEqual(avoiding, await HostOffsetAsync(image, (8 + i) * ClusterBytes));
        }
        await image.FlushAsync();
    }

    private static Task Run(Func<Qcow2Image, MemoryFile, Task> scenario) => Exclusive.Run(async () =>
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        var file = new MemoryFile();
        await CreateOperation.CreateAsync(file, new CreateOptions { VirtualBytes = 1 << 20, ClusterBytes = ClusterBytes });
        await using (Qcow2Image image = await Qcow2Image.OpenAsync(file, Disk.Writing(ClusterBytes)))
            await scenario(image, file);
        string path = directory.File("disk");
        await File.WriteAllBytesAsync(path, file.ToArray());
        await Judge.FindsCleanAsync(path);
    });

    private static byte[] Filled(byte value) => [.. Enumerable.Repeat(value, ClusterBytes)];

    private static async Task<long> HostOffsetAsync(Qcow2Image image, long offset) =>
        (await image.GetExtentAsync(offset, 1)).HostOffset ?? -1;

    /// <summary>A thread that stands inside a call under a lease, just before the file is touched.</summary>
    private sealed class Stay : IDisposable
    {
        private readonly ManualResetEventSlim _hold = new();
        private readonly TaskCompletionSource _punched = new(TaskCreationOptions.RunContinuationsAsynchronously);
        private readonly TaskCompletionSource<bool> _ended = new(TaskCreationOptions.RunContinuationsAsynchronously);
        private readonly MappingLease _lease;
        private readonly long _host;
        private readonly Thread _thread;

        public Stay(Qcow2Image image, MemoryFile file, long host, Func<MappingLease, bool> call)
        {
            _host = host;
            _lease = image.Lease();
            using var inside = new ManualResetEventSlim();
            _thread = new Thread(() =>
            {
                try
                {
                    _ended.SetResult(call(_lease));
                }
                catch (Exception e)
                {
                    _ended.SetException(e);
                }
            });
            file.Fault = Watch(inside.Set, isSession: true);
            _thread.Start();
            Assert.True(inside.Wait(Exclusive.Patience));
            file.Fault = Watch(() => { });
        }

        /// <summary>Whether the cluster went back to the host.</summary>
        public bool HasPunched => _punched.Task.IsCompleted;

        public Task Punched => _punched.Task;

        /// <summary>What the file does meanwhile: hears of operations other than reads, of the session's or of the others.</summary>
        public Func<FileOperation, long, int> Watch(Action told, bool isSession = false) => (operation, offset) =>
        {
            if (operation == FileOperation.PunchHole && offset == _host)
                _punched.TrySetResult();
            if (Thread.CurrentThread == _thread)
            {
                if (isSession)
                    told();
                _hold.Wait();
            }
            else if (!isSession && operation != FileOperation.Read)
            {
                told();
            }
            return 0;
        };

        /// <summary>Lets the session go on and leave.</summary>
        public async Task EndAsync()
        {
            _hold.Set();
            Assert.True(await _ended.Task);
        }

        public void Dispose()
        {
            _hold.Set();
            _thread.Join();
            _hold.Dispose();
            _lease.Dispose();
        }
    }
}
