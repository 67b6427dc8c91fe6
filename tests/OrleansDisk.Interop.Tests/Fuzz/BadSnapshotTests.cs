using System.Buffers.Binary;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Check;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Interop.Tests.Fuzz;

/// <summary>Snapshot tables that are too long, and refcounts that give away what snapshots consist of (W8).</summary>
public sealed class BadSnapshotTests : IDisposable
{
    private readonly BadImage _image = new();

    public void Dispose() => _image.Dispose();

    [Theory]
    [InlineData("snapshot table", 64)]
    [InlineData("inactive L1 table", -1)]
    public async Task What_snapshots_consist_of_is_never_handed_out_though_a_refcount_says_that_it_is_free(string what, int field)
    {
        string path = _image.Make();
        Tool.Run("qemu-img", "snapshot", "-c", "one", path);
        byte[] image = File.ReadAllBytes(path);
        long table = BinaryPrimitives.ReadInt64BigEndian(image.AsSpan(64));
        long cluster = (field >= 0 ? table : BinaryPrimitives.ReadInt64BigEndian(image.AsSpan((int)table))) >> 16;
        BadImage.Poke(path, (2 << 16) + ((int)cluster * 2), 2, 0);
        await Exclusive.Run(async () =>
        {
            Qcow2Image disk = await Qcow2Image.OpenAsync(path, new Qcow2OpenOptions { Access = ImageAccess.Write });
            Qcow2CorruptException e =
                await Assert.ThrowsAsync<Qcow2CorruptException>(() => disk.WriteAsync(0, new byte[1 << 20]).AsTask());
            Assert.Contains($"Preventing invalid write on metadata (overlaps with {what}", e.Message, StringComparison.Ordinal);
            await disk.CloseAsync();
        });
        Assert.Contains("one", Tool.Run("qemu-img", "snapshot", "-l", path), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(2, 2 << 20, "Can't resize a v2 image which has snapshots")]
    [InlineData(3, -512, "snapshot 1 says that its disk has")]
    [InlineData(3, long.MaxValue, "snapshot 1 says that its disk has")]
    [InlineData(3, 1L << 60, "snapshot 1 says that its disk has")]
    public async Task A_snapshot_whose_disk_had_a_size_that_can_not_be_is_not_applied(int version, long virtualBytes, string refusal)
    {
        string path = _image.Sibling("disk.qcow2");
        Disk.Create(path, 1 << 20, version == 2 ? "compat=0.10" : "compat=1.1");
        Tool.Run("qemu-img", "snapshot", "-c", "one", path);
        long table = BinaryPrimitives.ReadInt64BigEndian(File.ReadAllBytes(path).AsSpan(64));
        BadImage.Poke(path, (int)table + 48, 8, (ulong)virtualBytes);
        byte[] before = File.ReadAllBytes(path);
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image disk = await Qcow2Image.OpenAsync(path, new Qcow2OpenOptions { Access = ImageAccess.Write });
            Qcow2Exception e = await Assert.ThrowsAnyAsync<Qcow2Exception>(() => disk.ApplySnapshotAsync("one"));
            Assert.Contains(refusal, e.Message, StringComparison.Ordinal);
        });
        Assert.Equal(before, File.ReadAllBytes(path));
    }

    [Fact]
    public async Task A_snapshot_table_longer_than_64_MiB_is_refused_before_its_names_fill_the_memory()
    {
        string path = _image.Make();
        byte[] image = File.ReadAllBytes(path);
        const int table = 1 << 20;
        const int nameBytes = 65535;
        const int count = 2000;
        int entryBytes = (40 + 24 + nameBytes + nameBytes + 7) & ~7;
        BinaryPrimitives.WriteInt32BigEndian(image.AsSpan(60), count);
        BinaryPrimitives.WriteInt64BigEndian(image.AsSpan(64), table);
        Array.Resize(ref image, table);
        var file = MemoryFile.Load(image, new MemoryFile { IsReadOnly = false });
        byte[] entry = new byte[40];
        BinaryPrimitives.WriteUInt16BigEndian(entry.AsSpan(12), nameBytes);
        BinaryPrimitives.WriteUInt16BigEndian(entry.AsSpan(14), nameBytes);
        BinaryPrimitives.WriteInt32BigEndian(entry.AsSpan(36), 24);
        for (int i = 0; i < count; i++)
            await file.WriteAsync(table + ((long)i * entryBytes), entry);
        Qcow2FormatException e = await Assert.ThrowsAsync<Qcow2FormatException>(() => ImageInfo.ReadAsync(file, "qcow2"));
        Assert.StartsWith("Snapshot table is too big\n", e.Message, StringComparison.Ordinal);
        e = await Assert.ThrowsAsync<SnapshotTableException>(() => ImageCheck.RunAsync(file, new CheckOptions()));
        Assert.Contains("Snapshot table is too big\n", e.Message, StringComparison.Ordinal);
    }
}
