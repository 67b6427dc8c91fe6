using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Data;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Interop.Tests;

/// <summary>What a session may do by itself under a lease, and what it must ask the image for.</summary>
public sealed class LeaseTests
{
    private const int ClusterBytes = 4096;
    private const int DiskBytes = 1 << 20;

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

    private static Task Run(Func<Qcow2Image, MemoryFile, Task> scenario) => Exclusive.Run(async () =>
    {
        using var directory = new TemporaryDirectory();
        var file = new MemoryFile();
        await CreateOperation.CreateAsync(file, new CreateOptions { VirtualBytes = DiskBytes, ClusterBytes = ClusterBytes });
        await using (Qcow2Image image = await Qcow2Image.OpenAsync(file, Disk.Writing(ClusterBytes)))
            await scenario(image, file);
        string path = directory.Path("disk");
        await File.WriteAllBytesAsync(path, file.ToArray());
        await Judge.FindsCleanAsync(path);
    });
}
