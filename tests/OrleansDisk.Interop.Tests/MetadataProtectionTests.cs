using System.Buffers.Binary;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Data;

namespace OrleansDisk.Interop.Tests;

/// <summary>A guest entry that leads to metadata never lets a guest change or free it (docs/consistency.md, W8).</summary>
public sealed class MetadataProtectionTests
{
    private const int ClusterBytes = 64 << 10;

    public static TheoryData<string, int> Targets()
    {
        var data = new TheoryData<string, int>();
        foreach (string operation in (string[])["write", "write part", "discard", "zero"])
        {
            // Header, refcount table, refcount block, L1 table, L2 table: where qemu-img puts them.
            // The header can only be met by a compressed entry, and that one can't be read for a copy.
            for (int cluster = operation == "write part" ? 1 : 0; cluster <= 4; cluster++)
                data.Add(operation, cluster);
        }
        return data;
    }

    [Theory]
    [MemberData(nameof(Targets))]
    public async Task An_entry_that_leads_to_metadata_stops_the_image_and_the_metadata_stays(string operation, int cluster)
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = directory.File("disk.qcow2");
        Disk.Create(path, 16 << 20, "compat=1.1");
        Disk.QemuIo(path, "write -P 1 0 64k");
        byte[] image = File.ReadAllBytes(path);
        // The first L2 entry: not copied for a write, which then frees the old cluster.
        ulong entry = ((ulong)cluster * ClusterBytes) | (operation == "write" ? 1UL << 63 : 0);
        // Offset 0 is no cluster at all, so the header is met by a compressed entry.
        if (cluster == 0)
            entry = (1UL << 62) | 512;
        BinaryPrimitives.WriteUInt64BigEndian(image.AsSpan(4 * ClusterBytes), entry);
        File.WriteAllBytes(path, image);

        await Exclusive.Run(async () =>
        {
            Qcow2Image disk = await Qcow2Image.OpenAsync(path, Disk.Writing(ClusterBytes));
            await Assert.ThrowsAsync<Qcow2CorruptException>(() => operation switch
            {
                "write part" => disk.WriteAsync(4096, new byte[ClusterBytes - 4096]).AsTask(),
                "write" => disk.WriteAsync(0, new byte[ClusterBytes]).AsTask(),
                "discard" => disk.DiscardAsync(0, ClusterBytes).AsTask(),
                _ => disk.WriteZeroesAsync(0, ClusterBytes, mayUnmap: true).AsTask(),
            });
            await Assert.ThrowsAsync<Qcow2FailedException>(() => disk.WriteAsync(1 << 20, new byte[512]).AsTask());
            await disk.CloseAsync();
        });

        byte[] after = File.ReadAllBytes(path);
        image[79] |= 2; // the corrupt bit is all that may change
        Assert.Equal(image[..(5 * ClusterBytes)], after[..(5 * ClusterBytes)]);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    [InlineData(4)]
    public async Task A_lease_does_not_write_onto_metadata_that_lies_beside_entries_found_sound(int cluster)
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = directory.File("disk.qcow2");
        byte[] image = CreateWithEntry(path, (ulong)cluster, fileClusters: 7);
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image disk = await Qcow2Image.OpenAsync(path, Disk.Writing(ClusterBytes));
            using MappingLease lease = disk.Lease();
            await disk.WriteAsync(0, new byte[512]);
            Assert.True(lease.TryWrite(0, new byte[512]));
            Assert.False(lease.TryWrite(ClusterBytes, new byte[512]));
            Assert.False(lease.TryWrite(0, new byte[2 * ClusterBytes]));
        });
        Assert.Equal(image[..(5 * ClusterBytes)], File.ReadAllBytes(path)[..(5 * ClusterBytes)]);
    }

    [Fact]
    public async Task A_lease_does_not_write_onto_a_cluster_that_became_metadata_after_it_was_found_sound()
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = directory.File("disk.qcow2");
        CreateWithEntry(path, 7, fileClusters: 16); // a cluster that is free, say the refcounts
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image disk = await Qcow2Image.OpenAsync(path, Disk.Writing(ClusterBytes));
            using MappingLease lease = disk.Lease();
            await disk.WriteAsync(ClusterBytes, new byte[512]);
            Assert.True(lease.TryWrite(ClusterBytes, new byte[512]));
            await disk.WriteAsync(512 << 20, new byte[512]); // its L2 table takes the first free cluster
            Assert.False(lease.TryWrite(ClusterBytes, new byte[512]));
            await Assert.ThrowsAsync<Qcow2CorruptException>(async () => await disk.WriteAsync(ClusterBytes, new byte[512]));
            Assert.False(lease.TryRead(0, new byte[512]));
        });
    }

    /// <summary>An image with two guest clusters; the second one's entry has the copied flag and leads to a host cluster.</summary>
    private static byte[] CreateWithEntry(string path, ulong hostCluster, int fileClusters)
    {
        Disk.Create(path, 1 << 30, "compat=1.1");
        Disk.QemuIo(path, "write -P 1 0 128k");
        byte[] image = File.ReadAllBytes(path);
        Array.Resize(ref image, fileClusters * ClusterBytes);
        BinaryPrimitives.WriteUInt64BigEndian(image.AsSpan((4 * ClusterBytes) + 8), (hostCluster * ClusterBytes) | (1UL << 63));
        File.WriteAllBytes(path, image);
        return image;
    }
}
