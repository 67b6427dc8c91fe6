using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Interop.Tests.Fuzz;

/// <summary>Images that broke other programs (among them those of CVE-2014-0142 to CVE-2014-0147): one field of a sound image is bad, and
/// the image is refused in QEMU's words.</summary>
public sealed class BadHeaderTests : IDisposable
{
    private readonly BadImage _image = new();

    public void Dispose() => _image.Dispose();

    [Theory]
    [InlineData("no such version", 4, 4, 4)]
    [InlineData("the first version", 4, 4, 1)]
    [InlineData("clusters of 256 bytes", 20, 4, 8)]
    [InlineData("clusters of 4 MiB", 20, 4, 22)]
    [InlineData("a shift by all bits", 20, 4, 64)]
    [InlineData("a negative shift", 20, 4, 0xffffffff)]
    [InlineData("a short header", 100, 4, 64)]
    [InlineData("a header longer than its cluster", 100, 4, 0x10001)]
    [InlineData("a header length that overflows", 100, 4, 0xffffffff)]
    [InlineData("a header extension longer than the cluster", 116, 4, 0x7fffffff)]
    [InlineData("a header extension whose padded length overflows", 116, 4, 0xffffffff)]
    [InlineData("an unknown incompatible feature", 72, 8, 1ul << 63)]
    [InlineData("refcounts of 128 bits", 96, 4, 7)]
    [InlineData("a refcount width that overflows", 96, 4, 0xffffffff)]
    [InlineData("an unknown encryption", 32, 4, 3)]
    [InlineData("no refcount table", 56, 4, 0)]
    [InlineData("a refcount table of 2^48 bytes", 56, 4, 0xffffffff)]
    [InlineData("a refcount table just too long", 56, 4, 129)]
    [InlineData("an unaligned refcount table", 48, 8, 0x12345)]
    [InlineData("a refcount table whose end overflows", 48, 8, 0x7fffffffffff0000)]
    [InlineData("too many snapshots", 60, 4, 65537)]
    [InlineData("a snapshot table whose length overflows", 60, 4, 0xffffffff)]
    [InlineData("an unaligned snapshot table", 64, 8, 0x12345)]
    [InlineData("an L1 table of 32 GiB", 36, 4, 0xffffffff)]
    [InlineData("an L1 table just too long", 36, 4, (4 << 20) + 1)]
    [InlineData("an unaligned L1 table", 40, 8, 0x12345)]
    [InlineData("an L1 table whose end overflows", 40, 8, 0xffffffffffff0000)]
    [InlineData("an L1 table that is too short", 24, 8, 1ul << 40)]
    [InlineData("a disk of 8 EiB", 24, 8, 1ul << 63)]
    [InlineData("a backing file name outside the first cluster", 8, 8, 0x10001)]
    [InlineData("a backing file name at an offset that overflows", 8, 8, ulong.MaxValue)]
    public async Task A_bad_field_of_the_header_is_refused_as_qemu_refuses_it(string what, int offset, int bytes, ulong value)
    {
        string path = _image.Make();
        BadImage.Poke(path, offset, bytes, value);
        Qcow2Exception refusal = await Assert.ThrowsAnyAsync<Qcow2Exception>(() => Exclusive.Run(() => BadImage.OpenAndCloseAsync(path)));
        (int status, string output) = Tool.Try("qemu-img", "info", "-f", "qcow2", path);
        Assert.True(status == 1 && output.Contains(refusal.Message, StringComparison.Ordinal), $"{what}: '{refusal.Message}' here, by QEMU:\n{output}");
    }

    [Theory]
    [InlineData(1024)]
    [InlineData(0x7fffffff)]
    [InlineData(0xffffffff)]
    public async Task A_backing_file_name_that_is_too_long_is_refused_as_qemu_refuses_it(uint bytes)
    {
        string path = _image.MakeOverlay("base");
        BadImage.Poke(path, 16, 4, bytes);
        Qcow2Exception refusal = await Assert.ThrowsAnyAsync<Qcow2Exception>(() => Exclusive.Run(() => BadImage.OpenAndCloseAsync(path)));
        Assert.Contains(refusal.Message, Tool.Try("qemu-img", "info", "-f", "qcow2", path).Output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task An_image_encrypted_by_luks_without_its_header_is_refused()
    {
        string path = _image.Make();
        BadImage.Poke(path, 32, 4, 2);
        await Assert.ThrowsAnyAsync<Qcow2Exception>(() => Exclusive.Run(() => BadImage.OpenAndCloseAsync(path)));
        Assert.Equal(1 << 20, (await ImageInfo.ReadAsync(path, "qcow2", ImageAccess.Read)).VirtualBytes);
    }

    [Theory]
    [InlineData(0x4fffffffffffffff)]
    [InlineData(0x7fffffffffffffff)]
    [InlineData(0x4000000000000001)]
    [InlineData(0x7fc0000000000200)]
    public async Task A_compressed_cluster_that_leads_nowhere_is_an_error_of_the_read(ulong entry)
    {
        string path = _image.Make();
        BadImage.Poke(path, 4 << 16, 8, entry);
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image image = await Qcow2Image.OpenAsync(path, new Qcow2OpenOptions());
            Qcow2Exception e = await Assert.ThrowsAsync<Qcow2Exception>(() => image.ReadAsync(0, new byte[512]).AsTask());
            Assert.Contains("compressed data of guest cluster 0", e.Message, StringComparison.Ordinal);
            await image.ReadAsync(1 << 16, new byte[512]);
        });
    }
}
