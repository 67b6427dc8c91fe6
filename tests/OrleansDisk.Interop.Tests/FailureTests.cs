using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Interop.Tests;

/// <summary>
/// A file whose n-th write, flush or hole fails, for every n of a run: a failed data write fails its request alone, a
/// failed metadata write or flush stops the image, and what is on disk then has leaks at most.
/// </summary>
public sealed class FailureTests
{
    private const int DiskBytes = 192 << 10;
    private const int InputOutput = 5;
    private const int NoSpace = 28;

    [Theory]
    [InlineData(512, 64, 3, FileOperation.Write, InputOutput)]
    [InlineData(512, 64, 3, FileOperation.Write, NoSpace)]
    [InlineData(512, 64, 3, FileOperation.Flush, InputOutput)]
    [InlineData(4096, 16, 3, FileOperation.Write, InputOutput)]
    [InlineData(4096, 16, 2, FileOperation.Write, NoSpace)]
    [InlineData(4096, 16, 3, FileOperation.Flush, InputOutput)]
    [InlineData(4096, 16, 3, FileOperation.PunchHole, InputOutput)]
    [InlineData(4096, 16, 3, FileOperation.Read, InputOutput)]
    public async Task Whichever_operation_fails_the_image_has_leaks_at_most(
        int clusterBytes, int refcountBits, int version, FileOperation operation, int errorNumber)
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        byte[] empty = [];
        await Exclusive.Run(async () => empty = await CreateAsync(clusterBytes, refcountBits, version));
        int failures = 0;
        int stops = 0;
        for (int failing = 1; ; failing++)
        {
            Run run = new(empty, clusterBytes, failing, operation, errorNumber);
            await Exclusive.Run(run.RunAsync);
            if (!run.HasFailed)
                break;
            failures++;
            stops += run.HasStopped ? 1 : 0;
            string path = directory.File("disk");
            await File.WriteAllBytesAsync(path, run.Left());
            // The in-process checker judges every run, QEMU some of them: it takes longer to start.
            if (failing % 16 == 1)
                await Judge.FindsAtMostLeaksAsync(path);
            else
                await Judge.OwnCheckFindsAtMostLeaksAsync(path);
        }
        Assert.True(failures > 8, $"only {failures} operations could fail");
        if (operation == FileOperation.Flush)
            Assert.Equal(failures, stops);
        if (operation == FileOperation.PunchHole)
            Assert.Equal(0, stops);
        if (operation == FileOperation.Write)
            Assert.InRange(stops, 1, failures - 1);
    }

    [Fact]
    public Task A_file_that_is_full_fails_writes_with_its_own_error_and_recovers_when_there_is_room() => Exclusive.Run(async () =>
    {
        var file = MemoryFile.Load(await CreateAsync(4096, 16, 3), new MemoryFile());
        await using Qcow2Image image = await Qcow2Image.OpenAsync(file, Disk.Writing(4096));
        await image.WriteAsync(0, new byte[8192]);
        await image.FlushAsync();
        long length = file.LengthBytes;
        file.Fault = (operation, offset) => operation == FileOperation.Write && offset >= length ? NoSpace : 0;
        await Assert.ThrowsAsync<NoSpaceException>(async () => await image.WriteAsync(32 << 10, new byte[4096]));
        await image.WriteAsync(0, new byte[8192]); // in place: needs no room
        await image.FlushAsync();
        file.Fault = (_, _) => 0;
        byte[] data = Enumerable.Repeat((byte)7, 4096).ToArray();
        await image.WriteAsync(32 << 10, data);
        byte[] read = new byte[4096];
        await image.ReadAsync(32 << 10, read);
        Assert.Equal(data, read);
    });

    [Fact]
    public Task A_stopped_image_refuses_every_later_write_and_flush_and_tells_why() => Exclusive.Run(async () =>
    {
        var file = MemoryFile.Load(await CreateAsync(4096, 16, 3), new MemoryFile());
        Qcow2Image image = await Qcow2Image.OpenAsync(file, Disk.Writing(4096));
        await image.WriteAsync(0, new byte[100]);
        file.Fault = (operation, _) => operation == FileOperation.Flush ? InputOutput : 0;
        await Assert.ThrowsAsync<Qcow2FailedException>(async () => await image.FlushAsync());
        file.Fault = (_, _) => 0;
        int operations = 0;
        file.Fault = (operation, _) =>
        {
            operations += operation == FileOperation.Read ? 0 : 1;
            return 0;
        };
        for (int i = 0; i < 3; i++)
        {
            await Assert.ThrowsAsync<Qcow2FailedException>(async () => await image.FlushAsync());
            await Assert.ThrowsAsync<Qcow2FailedException>(async () => await image.WriteAsync(0, new byte[100]));
            await Assert.ThrowsAsync<Qcow2FailedException>(async () => await image.WriteAsync(100_000, new byte[100], fua: true));
            await Assert.ThrowsAsync<Qcow2FailedException>(async () => await image.DiscardAsync(0, 8192));
            await Assert.ThrowsAsync<Qcow2FailedException>(async () => await image.WriteZeroesAsync(0, 8192, mayUnmap: true));
            await Assert.ThrowsAsync<Qcow2FailedException>(() => image.ResizeAsync(1 << 20));
        }
        await image.CloseAsync();
        Assert.Equal(0, operations);
    });

    private static async Task<byte[]> CreateAsync(int clusterBytes, int refcountBits, int version)
    {
        var file = new MemoryFile();
        await CreateOperation.CreateAsync(file, new CreateOptions
        {
            VirtualBytes = DiskBytes,
            ClusterBytes = clusterBytes,
            RefcountBits = refcountBits,
            Version = version,
        });
        return file.ToArray();
    }

    /// <summary>One run of the same requests, of whose file operations of one kind the n-th fails.</summary>
    private sealed class Run
    {
        private readonly MemoryFile _file;
        private readonly int _clusterBytes;
        private readonly byte[] _model = new byte[DiskBytes];
        private readonly bool[] _isUnknown = new bool[DiskBytes];
        private readonly Random _random = new(5);
        private int _left;

        public Run(byte[] image, int clusterBytes, int failing, FileOperation operation, int errorNumber)
        {
            _clusterBytes = clusterBytes;
            _file = MemoryFile.Load(image, new MemoryFile());
            _left = failing;
            _file.Fault = (kind, _) => kind == operation && --_left == 0 ? errorNumber : 0;
        }

        public bool HasFailed => _left <= 0;

        public bool HasStopped { get; private set; }

        public byte[] Left() => _file.ToArray();

        public async Task RunAsync()
        {
            Qcow2Image image;
            try
            {
                image = await Qcow2Image.OpenAsync(_file, Disk.Writing(_clusterBytes));
            }
            catch (BlockFileException)
            {
                return; // a read of the header or a table
            }
            for (int i = 0; i < 70; i++)
                await ChangeAsync(image);
            if (!HasStopped)
                await VerifyAsync(image);
            try
            {
                await image.CloseAsync();
            }
            catch (Qcow2Exception)
            {
                HasStopped = true;
            }
        }

        private async Task ChangeAsync(Qcow2Image image)
        {
            int length = 1 + _random.Next(_clusterBytes * 6);
            int start = _random.Next(DiskBytes - length);
            int kind = _random.Next(6);
            if (kind <= 2)
                (start, length) = Whole(start, length);
            byte[] data = new byte[length];
            if (kind > 2)
                _random.NextBytes(data);
            bool wasStopped = HasStopped;
            try
            {
                await (kind switch
                {
                    0 => image.DiscardAsync(start, length),
                    1 => image.WriteZeroesAsync(start, length, mayUnmap: true),
                    2 => image.FlushAsync(),
                    _ => image.WriteAsync(start, data, fua: kind == 3),
                });
                Assert.False(wasStopped, "an image that had stopped took a change");
                if (kind != 2)
                {
                    data.CopyTo(_model.AsSpan(start));
                    _isUnknown.AsSpan(start, length).Clear();
                }
            }
            catch (Qcow2FailedException)
            {
                HasStopped = true;
            }
            catch (IOException) when (!wasStopped)
            {
                _isUnknown.AsSpan(start, length).Fill(true);
            }
        }

        private (int Start, int Length) Whole(int start, int length)
        {
            start = start / _clusterBytes * _clusterBytes;
            return (start, Math.Max(_clusterBytes, length / _clusterBytes * _clusterBytes));
        }

        private async Task VerifyAsync(Qcow2Image image)
        {
            byte[] read = new byte[DiskBytes];
            try
            {
                await image.ReadAsync(0, read);
            }
            catch (IOException e)
            {
                HasStopped = e is Qcow2FailedException; // a table had to leave the cache first
                return;
            }
            for (int at = 0; at < DiskBytes; at++)
                Assert.True(_isUnknown[at] || read[at] == _model[at], $"the disk differs from the model at 0x{at:x}");
        }
    }
}
