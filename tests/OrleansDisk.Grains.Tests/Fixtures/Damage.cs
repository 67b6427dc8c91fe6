using System.Buffers.Binary;

namespace OrleansDisk.Grains.Tests.Fixtures;

/// <summary>Damages images where it is not seen before the damage is used.</summary>
internal static class Damage
{
    // Where qemu-img puts the first L2 table of a new image with clusters of 64 KiB.
    private const int SecondL2Entry = 0x40000 + 8;

    /// <summary>Fills the first two clusters of an image and lets the second's L2 entry point between clusters.</summary>
    public static async Task MisalignSecondClusterAsync(string path)
    {
        await Tool.RunAsync("qemu-io", "-f", "qcow2", "-c", "write 0 128k", path);
        byte[] image = await File.ReadAllBytesAsync(path);
        ulong entry = BinaryPrimitives.ReadUInt64BigEndian(image.AsSpan(SecondL2Entry));
        Assert.Equal(0x8000000000060000, entry);
        BinaryPrimitives.WriteUInt64BigEndian(image.AsSpan(SecondL2Entry), entry | 0x200);
        await File.WriteAllBytesAsync(path, image);
    }
}
