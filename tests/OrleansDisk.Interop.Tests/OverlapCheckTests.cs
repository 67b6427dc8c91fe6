using System.Buffers.Binary;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Interop.Tests;

/// <summary>overlap-check: which metadata guest data is not written over, in QEMU's words.</summary>
public sealed class OverlapCheckTests : IDisposable
{
    private const int ClusterBytes = 64 << 10;
    private static readonly byte[] _bitmapsExtension = [0x23, 0x85, 0x28, 0x75];
    private readonly TemporaryDirectory _directory = new(inMemory: true);

    private string Image => _directory.File("disk.qcow2");

    public void Dispose() => _directory.Dispose();

    [Theory]
    [InlineData("active L1 table", "cached")]
    [InlineData("active L1 table", "constant")]
    [InlineData("refcount table", "constant")]
    [InlineData("snapshot table", "constant")]
    [InlineData("active L2 table", "cached")]
    [InlineData("refcount block", "cached")]
    [InlineData("inactive L1 table", "cached")]
    [InlineData("inactive L2 table", "all")]
    [InlineData("bitmap directory", "constant")]
    public async Task A_write_that_would_hit_metadata_stops_the_image_with_qemus_message(string kind, string template)
    {
        MakeImage(kind);
        byte[] damaged = File.ReadAllBytes(Image);
        (_, string theirs) = Tool.Try("qemu-io", "--image-opts", "-c", "write 64k 512",
            $"driver=qcow2,file.filename={Image},overlap-check={template}");
        File.WriteAllBytes(Image, damaged);
        Qcow2CorruptException ours = await Assert.ThrowsAsync<Qcow2CorruptException>(() => WriteAsync(template));
        Assert.Contains(ours.Message, theirs, StringComparison.Ordinal);
        Assert.Contains($"overlaps with {kind}", ours.Message, StringComparison.Ordinal);
        damaged[79] |= 2; // the corrupt bit is all that may change
        Assert.Equal(damaged, File.ReadAllBytes(Image));
    }

    [Theory]
    [InlineData("inactive L2 table", "cached")]
    [InlineData("active L2 table", "constant")]
    [InlineData("snapshot table", "none")]
    [InlineData("bitmap directory", "none")]
    public async Task What_is_not_looked_for_is_written_over(string kind, string template)
    {
        long target = MakeImage(kind);
        await WriteAsync(template);
        Assert.Equal(0x5a, File.ReadAllBytes(Image)[target]);
    }

    private Task WriteAsync(string template) => Exclusive.Run(async () =>
    {
        var options = new Qcow2OpenOptions { Access = ImageAccess.Write, OverlapChecks = Enum.Parse<OverlapChecks>(template, ignoreCase: true) };
        await using Qcow2Image image = await Qcow2Image.OpenAsync(Image, options);
        byte[] data = new byte[512];
        data.AsSpan().Fill(0x5a);
        await image.WriteAsync(ClusterBytes, data);
    });

    /// <summary>Makes an image with a snapshot; the entry of the second cluster, with its copied flag, leads to the metadata.</summary>
    private long MakeImage(string kind)
    {
        Disk.Create(Image, 64 << 20, "compat=1.1");
        Disk.QemuIo(Image, "write -P 1 0 128k");
        Tool.Run("qemu-img", "snapshot", "-c", "kept", Image);
        Disk.QemuIo(Image, "write -P 2 0 128k");
        if (kind == "bitmap directory")
            Tool.Run("qemu-img", "bitmap", "--add", "--disable", Image, "changes");
        byte[] image = File.ReadAllBytes(Image);
        long Offset(long at) => (long)(BinaryPrimitives.ReadUInt64BigEndian(image.AsSpan((int)at)) & 0x00ff_ffff_ffff_fe00);
        long activeL2 = Offset(Offset(40));
        long target = kind switch
        {
            "active L1 table" => Offset(40),
            "refcount table" => Offset(48),
            "refcount block" => Offset(Offset(48)),
            "snapshot table" => Offset(64),
            "inactive L1 table" => Offset(Offset(64)),
            "inactive L2 table" => Offset(Offset(Offset(64))),
            "bitmap directory" => Offset(image.AsSpan().IndexOf(_bitmapsExtension) + 24),
            _ => activeL2,
        };
        BinaryPrimitives.WriteUInt64BigEndian(image.AsSpan((int)activeL2 + 8), (ulong)target | (1UL << 63));
        File.WriteAllBytes(Image, image);
        return target;
    }
}
