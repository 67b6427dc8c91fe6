using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Data;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Interop.Tests;

/// <summary>What a session may do by itself under a lease, and what it must ask the image for.</summary>
public sealed class LeaseTests
{
    private const int ClusterBytes = 4096;
    private const int DiskBytes = 4 << 20;
    private const int InputOutput = 5;

    [Fact]
    public Task A_lease_reads_and_overwrites_what_the_image_has_allocated() => Run(async (image, _) =>
    {
        byte[] data = Disk.MixedBytes(5 * ClusterBytes, seed: 1);
        await image.WriteAsync(ClusterBytes, data);
        using MappingLease lease = image.Lease();
        byte[] read = new byte[data.Length];
        Assert.True(lease.TryRead(ClusterBytes, read));
        Assert.Equal(data, read);

        byte[] over = Disk.MixedBytes((2 * ClusterBytes) + 100, seed: 2);
        Assert.True(lease.TryWrite(ClusterBytes + 700, over));
        over.CopyTo(data.AsSpan(700));
        await image.ReadAsync(ClusterBytes, read);
        Assert.Equal(data, read);
        Assert.True(lease.TryRead(ClusterBytes, read, mustBeData: true));
        Assert.Equal(data, read);
    });

    [Fact]
    public Task What_needs_a_change_of_the_mapping_is_left_to_the_image() => Run(async (image, _) =>
    {
        using MappingLease lease = image.Lease();
        Assert.False(lease.TryWrite(0, new byte[512]));
        await image.WriteAsync(0, new byte[ClusterBytes]);
        Assert.True(lease.TryWrite(0, new byte[512]));
        Assert.False(lease.TryWrite(0, new byte[ClusterBytes + 512]));
        Assert.False(lease.TryWrite(DiskBytes - 512, new byte[1024]));
        Assert.False(lease.TryRead(DiskBytes - 512, new byte[1024]));
        Assert.False(lease.TryRead(-512, new byte[512]));
        await image.WriteZeroesAsync(0, ClusterBytes, mayUnmap: false);
        Assert.False(lease.TryWrite(0, new byte[512]));
        await image.DiscardAsync(0, ClusterBytes);
        Assert.False(lease.TryWrite(0, new byte[512]));
    });

    [Fact]
    public Task Zeros_of_every_kind_are_read_without_the_file_and_told_from_data() => Run(async (image, file) =>
    {
        await image.WriteAsync(0, Filled(8 * ClusterBytes, 1));
        await image.WriteZeroesAsync(ClusterBytes, ClusterBytes, mayUnmap: false);
        await image.WriteZeroesAsync(2 * ClusterBytes, ClusterBytes, mayUnmap: true);
        await image.DiscardAsync(3 * ClusterBytes, ClusterBytes);
        file.Fault = (operation, _) => operation == FileOperation.Read ? InputOutput : 0;
        using MappingLease lease = image.Lease();
        long[] zeros = [ClusterBytes, 2 * ClusterBytes, 3 * ClusterBytes, 9 * ClusterBytes];
        foreach (long offset in zeros)
        {
            byte[] read = Filled(ClusterBytes, 2);
            Assert.True(lease.TryRead(offset, read));
            Assert.Equal(new byte[ClusterBytes], read);
            Assert.False(lease.TryRead(offset, read, mustBeData: true));
        }
        file.Fault = (_, _) => 0;
        byte[] whole = new byte[8 * ClusterBytes];
        Assert.True(lease.TryRead(0, whole));
        Assert.Equal([.. Filled(ClusterBytes, 1), .. new byte[3 * ClusterBytes], .. Filled(4 * ClusterBytes, 1)], whole);
    });

    [Fact]
    public Task Where_no_L2_table_exists_a_lease_reads_zeros_once_a_turn_has_looked() => Run(async (image, _) =>
    {
        using MappingLease lease = image.Lease();
        byte[] read = Filled(512, 1);
        Assert.False(lease.TryRead(0, read));
        await image.ReadAsync(0, read);
        read = Filled(512, 1);
        Assert.True(lease.TryRead(0, read));
        Assert.Equal(new byte[512], read);
        await image.WriteAsync(0, Filled(512, 3));
        Assert.True(lease.TryRead(0, read));
        Assert.Equal(Filled(512, 3), read);
    });

    [Fact]
    public Task A_table_that_has_left_the_cache_is_the_images_to_load() => Run(async (image, _) =>
    {
        const long bytesPerTable = ClusterBytes / 8 * ClusterBytes;
        await image.ResizeAsync(8 * bytesPerTable);
        await image.WriteAsync(0, Filled(ClusterBytes, 1));
        using MappingLease lease = image.Lease();
        byte[] read = new byte[ClusterBytes];
        Assert.True(lease.TryRead(0, read));
        for (int table = 1; table < 8; table++)
            await image.WriteAsync(table * bytesPerTable, Filled(ClusterBytes, (byte)table));
        Assert.False(lease.TryRead(0, read));
        Assert.False(lease.TryWrite(0, read));
        await image.ReadAsync(0, read);
        Assert.True(lease.TryRead(0, read));
        Assert.Equal(Filled(ClusterBytes, 1), read);
    });

    [Fact]
    public Task A_table_that_only_a_lease_uses_outlives_those_that_nobody_uses() => Run(async (image, _) =>
    {
        const long bytesPerTable = ClusterBytes / 8 * ClusterBytes;
        await image.ResizeAsync(16 * bytesPerTable);
        for (int table = 0; table < 16; table++)
            await image.WriteAsync(table * bytesPerTable, Filled(ClusterBytes, (byte)table));
        await image.FlushAsync();
        byte[] read = new byte[ClusterBytes];
        await image.ReadAsync(0, read);
        using MappingLease lease = image.Lease();
        for (int table = 1; table < 16; table++)
        {
            Assert.True(lease.TryRead(0, read), $"table 0 left the cache of three tables when table {table} came");
            await image.ReadAsync(table * bytesPerTable, read);
        }
    });

    [Fact]
    public Task A_write_under_a_lease_gives_the_next_flush_a_barrier_to_make() => Run(async (image, file) =>
    {
        await image.WriteAsync(0, Filled(ClusterBytes, 1));
        await image.FlushAsync();
        using MappingLease lease = image.Lease();
        int flushes = 0;
        file.Fault = (operation, _) =>
        {
            flushes += operation == FileOperation.Flush ? 1 : 0;
            return 0;
        };
        await image.FlushAsync();
        Assert.Equal(0, flushes);
        Assert.True(lease.TryWrite(512, Filled(512, 2)));
        await image.FlushAsync();
        Assert.Equal(1, flushes);
    });

    [Fact]
    public Task A_write_that_fails_under_a_lease_tells_its_session_and_nobody_else() => Run(async (image, file) =>
    {
        await image.WriteAsync(0, Filled(ClusterBytes, 1));
        using MappingLease lease = image.Lease();
        file.Fault = (operation, _) => operation == FileOperation.Write ? InputOutput : 0;
        Assert.Throws<Qcow2.Io.BlockFileException>(() => lease.TryWrite(0, new byte[512]));
        file.Fault = (_, _) => 0;
        Assert.True(lease.TryWrite(0, new byte[512]));
        Assert.False(image.HasFailed);
    });

    [Fact]
    public Task A_stopped_a_closed_and_an_ended_lease_refuse_everything() => Run(async (image, file) =>
    {
        await image.WriteAsync(0, Filled(ClusterBytes, 1));
        byte[] read = new byte[512];
        MappingLease ended = image.Lease();
        using MappingLease lease = image.Lease();
        ended.Dispose();
        Assert.False(ended.TryRead(0, read));
        Assert.True(lease.TryRead(0, read));
        file.Fault = (operation, _) => operation == FileOperation.Flush ? InputOutput : 0;
        await Assert.ThrowsAsync<Qcow2FailedException>(async () => await image.FlushAsync());
        file.Fault = (_, _) => 0;
        Assert.False(lease.TryRead(0, read));
        Assert.False(lease.TryWrite(0, read));
        await image.CloseAsync();
        Assert.False(lease.TryRead(0, read));
        Assert.Throws<Qcow2Exception>(image.Lease);
    }, endsClean: false);

    [Fact]
    public Task A_closed_image_refuses_its_leases() => Run(async (image, _) =>
    {
        await image.WriteAsync(0, Filled(ClusterBytes, 1));
        using MappingLease lease = image.Lease();
        await image.CloseAsync();
        Assert.False(lease.TryRead(0, new byte[512]));
        Assert.False(lease.TryWrite(0, new byte[512]));
    });

    private static Task Run(Func<Qcow2Image, MemoryFile, Task> scenario, bool endsClean = true) => Exclusive.Run(async () =>
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        var file = new MemoryFile();
        await CreateOperation.CreateAsync(file, new CreateOptions { VirtualBytes = DiskBytes, ClusterBytes = ClusterBytes });
        await using (Qcow2Image image = await Qcow2Image.OpenAsync(file, Disk.Writing(ClusterBytes)))
            await scenario(image, file);
        string path = directory.File("disk");
        await File.WriteAllBytesAsync(path, file.ToArray());
        await (endsClean ? Judge.FindsCleanAsync(path) : Judge.FindsAtMostLeaksAsync(path));
    });

    private static byte[] Filled(int bytes, byte value) => [.. Enumerable.Repeat(value, bytes)];
}
