using System.Buffers.Binary;
using OrleansDisk.Qcow2;

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
        using var directory = new TemporaryDirectory();
        string path = directory.Path("disk.qcow2");
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
}
