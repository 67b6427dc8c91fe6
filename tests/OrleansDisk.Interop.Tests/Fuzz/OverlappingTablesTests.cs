using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Interop.Tests.Fuzz;

/// <summary>Tables that lie in each other: who writes the one changes the other (docs/consistency.md, W8).</summary>
public sealed class OverlappingTablesTests : IDisposable
{
    private readonly BadImage _image = new();

    public void Dispose() => _image.Dispose();

    [Theory]
    [InlineData("the L1 table in the header", 40, 8, 0)]
    [InlineData("the L1 table in the refcount table", 40, 8, 1 << 16)]
    [InlineData("a refcount table that reaches over the L1 table", 56, 4, 4)]
    [InlineData("an L2 table in a refcount block", 3 << 16, 8, (1ul << 63) | (2 << 16))]
    [InlineData("an L2 table in the L1 table", 3 << 16, 8, (1ul << 63) | (3 << 16))]
    [InlineData("a refcount block twice", (1 << 16) + 8, 8, 2 << 16)]
    [InlineData("a refcount block in the L1 table", (1 << 16) + 8, 8, 3 << 16)]
    public async Task Tables_that_lie_in_each_other_stop_the_first_change(string what, int offset, int bytes, ulong value)
    {
        string path = _image.Make();
        BadImage.Poke(path, offset, bytes, value);
        byte[] before = File.ReadAllBytes(path);
        await Exclusive.Run(async () =>
        {
            Qcow2Image image = await Qcow2Image.OpenAsync(path, new Qcow2OpenOptions { Access = ImageAccess.Write });
            Qcow2CorruptException e =
                await Assert.ThrowsAsync<Qcow2CorruptException>(() => image.WriteAsync(1 << 19, new byte[512]).AsTask());
            Assert.True(e.Message.Contains("Preventing invalid write on metadata", StringComparison.Ordinal), $"{what}: {e.Message}");
            await Assert.ThrowsAsync<Qcow2FailedException>(() => image.ResizeAsync(4 << 20));
            await image.CloseAsync();
        });
        before[79] |= 2; // the corrupt bit is all that may change
        Assert.Equal(before, File.ReadAllBytes(path));
    }
}
