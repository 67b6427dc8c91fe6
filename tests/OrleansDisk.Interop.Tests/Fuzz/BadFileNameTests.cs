using System.Buffers.Binary;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Interop.Tests.Fuzz;

/// <summary>The names that an image holds of other files are what its maker wants us to open (CVE-2024-4467 and its like).</summary>
public sealed class BadFileNameTests : IDisposable
{
    private readonly BadImage _image = new();

    public void Dispose() => _image.Dispose();

    [Theory]
    [InlineData("json:{\"driver\":\"file\",\"filename\":\"/etc/hostname\"}")]
    [InlineData("json:{}")]
    [InlineData("nbd://127.0.0.1:1/export")]
    [InlineData("http://127.0.0.1:1/disk")]
    [InlineData("fat:rw:/etc")]
    [InlineData("blkdebug::/etc/hostname")]
    public async Task A_backing_file_name_that_is_no_file_is_refused_and_never_followed(string name)
    {
        string path = _image.MakeOverlay(name);
        Qcow2UnsupportedException refusal =
            await Assert.ThrowsAsync<Qcow2UnsupportedException>(() => Exclusive.Run(() => BadImage.OpenAndCloseAsync(path)));
        Assert.Contains(name, refusal.Message, StringComparison.Ordinal);
        Assert.Equal(name, (await ImageInfo.ReadAsync(path, "qcow2", ImageAccess.Read)).Header!.BackingFile);
    }

    [Fact]
    public async Task A_backing_file_that_is_a_pipe_is_refused_and_not_waited_for()
    {
        Tool.Run("mkfifo", _image.Sibling("pipe"));
        string path = _image.MakeOverlay("pipe");
        Qcow2Exception refusal = await Assert.ThrowsAnyAsync<Qcow2Exception>(() => Exclusive.Run(() => BadImage.OpenAndCloseAsync(path)));
        Assert.Contains("neither a file nor a block device", refusal.Message, StringComparison.Ordinal);
        await Assert.ThrowsAsync<Qcow2Exception>(() => ImageInfo.ReadAsync(_image.Sibling("pipe"), null, ImageAccess.Read));
    }

    [Fact]
    public async Task A_backing_file_name_ends_at_a_nul()
    {
        File.WriteAllBytes(_image.Sibling("base"), new byte[1 << 20]);
        string path = _image.MakeOverlay("base");
        byte[] image = File.ReadAllBytes(path);
        long end = BinaryPrimitives.ReadInt64BigEndian(image.AsSpan(8)) + 4;
        BadImage.Poke(path, (int)end, 8, 0x0061_6263_0000_0000);
        BadImage.Poke(path, 16, 4, 8);
        await Exclusive.Run(() => BadImage.OpenAndCloseAsync(path));
        Assert.Equal("base", (await ImageInfo.ReadAsync(path, "qcow2", ImageAccess.Read)).Header!.BackingFile);
        Assert.Contains("backing file: base (", Tool.Run("qemu-img", "info", path), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_data_file_name_is_never_followed_not_even_to_a_pipe()
    {
        Tool.Run("mkfifo", _image.Sibling("pipe"));
        string path = _image.Make();
        foreach (string name in (string[])["pipe", "json:{\"driver\":\"host_device\",\"filename\":\"/dev/null\"}"])
        {
            byte[] image = File.ReadAllBytes(path);
            image[79] |= 4; // external data file
            BinaryPrimitives.WriteUInt32BigEndian(image.AsSpan(112), 0x44415441);
            BinaryPrimitives.WriteInt32BigEndian(image.AsSpan(116), name.Length);
            image.AsSpan(120, 512).Clear();
            System.Text.Encoding.ASCII.GetBytes(name, image.AsSpan(120));
            File.WriteAllBytes(path, image);
            ImageInfo info = await ImageInfo.ReadAsync(path, "qcow2", ImageAccess.Read);
            Assert.Equal(1 << 20, info.VirtualBytes);
            await Assert.ThrowsAnyAsync<Qcow2Exception>(() => Exclusive.Run(() => BadImage.OpenAndCloseAsync(path)));
        }
    }
}
