using System.Buffers.Binary;
using System.Text;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Interop.Tests;

/// <summary>What an image's header asks of those who open it: what is kept, what is cleared, what is refused and how.</summary>
public sealed class HeaderTests : IDisposable
{
    private const int ClusterBytes = 65536;
    private readonly TemporaryDirectory _directory = new(inMemory: true);
    private readonly string _path;

    public HeaderTests() => _path = _directory.File("disk");

    public void Dispose() => _directory.Dispose();

    [Fact]
    public async Task Unknown_fields_and_extensions_and_compatible_bits_are_kept_byte_for_byte()
    {
        Create("cluster_size=64k");
        byte[] cluster = new byte[ClusterBytes];
        ReadHeader().AsSpan(0, 104).CopyTo(cluster);
        BinaryPrimitives.WriteUInt32BigEndian(cluster.AsSpan(100), 120); // header_length
        BinaryPrimitives.WriteUInt64BigEndian(cluster.AsSpan(80), (1UL << 63) | (1UL << 40)); // compatible features
        BinaryPrimitives.WriteUInt64BigEndian(cluster.AsSpan(112), 0x1122_3344_5566_7788);
        int at = 120;
        foreach ((uint type, string data) in (ReadOnlySpan<(uint, string)>)[(0x12345678, "kept as it is"), (0xdead_beef, ""), (0x4242_4242, "12345678")])
        {
            BinaryPrimitives.WriteUInt32BigEndian(cluster.AsSpan(at), type);
            BinaryPrimitives.WriteUInt32BigEndian(cluster.AsSpan(at + 4), (uint)data.Length);
            Encoding.ASCII.GetBytes(data, cluster.AsSpan(at + 8));
            at += 8 + ((data.Length + 7) & ~7);
        }
        cluster.AsSpan(at + 8, 64).Fill(0x99); // behind the end of the extensions
        WriteAt(0, cluster);
        byte[] model = new byte[1 << 20];
        await Exclusive.Run(() => Disk.ScribbleAsync(_path, model, seed: 1, Disk.Writing(ClusterBytes), groups: 5, maxBytes: 50_000));
        byte[] after = ReadHeader();
        Assert.True(after.AsSpan().SequenceEqual(cluster), $"the header differs at {after.AsSpan().CommonPrefixLength(cluster)}");

        // Growing changes size and the L1 table's fields, and nothing else.
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image image = await Qcow2Image.OpenAsync(_path, Disk.Writing(ClusterBytes));
            await image.ResizeAsync(2L << 40);
        });
        after = ReadHeader();
        cluster.AsSpan(24, 24).CopyTo(after.AsSpan(24));
        Assert.True(after.AsSpan().SequenceEqual(cluster), $"the header differs at {after.AsSpan().CommonPrefixLength(cluster)}");
        await Judge.FindsCleanAsync(_path);
    }

    [Fact]
    public async Task Unknown_incompatible_features_are_refused_with_QEMUs_words_and_the_names_in_the_image()
    {
        Create("cluster_size=64k");
        byte[] header = ReadHeader();
        int table = IndexOfExtension(header, 0x6803_f857);
        int firstRow = table + 8;
        header[firstRow] = 0; // incompatible
        header[firstRow + 1] = 60;
        header.AsSpan(firstRow + 2, 46).Clear();
        Encoding.ASCII.GetBytes("time travel", header.AsSpan(firstRow + 2));
        BinaryPrimitives.WriteUInt64BigEndian(header.AsSpan(72), (1UL << 60) | (1UL << 50));
        WriteAt(0, header);
        (_, string qemu) = Tool.Try("qemu-io", "-f", "qcow2", "-c", "read 0 512", _path);
        foreach (ImageAccess access in Enum.GetValues<ImageAccess>())
        {
            Qcow2Exception error = await RefusedAsync(access);
            Assert.Contains("time travel, Unknown incompatible feature: 4000000000000", error.Message, StringComparison.Ordinal);
            Assert.Contains(error.Message, qemu, StringComparison.Ordinal);
        }
    }

    [Fact]
    public async Task Unknown_autoclear_features_are_cleared_by_a_writable_open_only()
    {
        Create("cluster_size=64k");
        byte[] bits = new byte[8];
        BinaryPrimitives.WriteUInt64BigEndian(bits, 1UL << 55);
        WriteAt(88, bits);
        await Exclusive.Run(async () =>
        {
            await (await OpenAsync(ImageAccess.Read)).CloseAsync();
            await (await OpenAsync(ImageAccess.ReadShared)).CloseAsync();
            Assert.Equal(1UL << 55, Field(88));
            await (await OpenAsync(ImageAccess.Write)).CloseAsync();
            Assert.Equal(0UL, Field(88));
        });
        await Judge.FindsCleanAsync(_path);
    }

    [Fact]
    public async Task A_corrupt_image_is_read_and_not_written()
    {
        Create("cluster_size=64k");
        Disk.QemuIo(_path, "write -P 0x77 0 1M");
        WriteAt(72, [0, 0, 0, 0, 0, 0, 0, 2]);
        Qcow2Exception error = await RefusedAsync(ImageAccess.Write);
        Assert.Equal("qcow2: Image is corrupt; cannot be opened read/write", error.Message);
        await ReadsPatternAsync(0x77);
        Assert.Equal(2UL, Field(72));
    }

    [Fact]
    public async Task A_dirty_image_is_read_as_it_is_and_repaired_before_it_is_written()
    {
        Create("cluster_size=64k,lazy_refcounts=on");
        // An abort leaves what a crash leaves.
        _ = Tool.Try("qemu-io", "-f", "qcow2", "-c", "write -P 0x77 0 1M", "-c", "abort", _path);
        Assert.Equal(1UL, Field(72));
        await ReadsPatternAsync(0x77);
        Assert.Equal(1UL, Field(72));
        var done = new List<string>();
        var options = new Qcow2OpenOptions { Access = ImageAccess.Write, Repairing = finding => done.Add(finding.Message) };
        await Exclusive.Run(async () => await (await Qcow2Image.OpenAsync(_path, options)).CloseAsync());
        Assert.Contains("Rebuilding refcount structure", done);
        Assert.Equal(0UL, Field(72));
        await ReadsPatternAsync(0x77);
        await Judge.FindsCleanAsync(_path);
    }

    [Theory]
    [InlineData(true, null, 1UL)]
    [InlineData(false, true, 1UL)]
    [InlineData(true, false, 0UL)]
    [InlineData(false, null, 0UL)]
    public async Task An_image_with_lazy_refcounts_is_dirty_from_its_first_allocation_to_its_clean_close(bool inHeader, bool? inOptions, ulong expected)
    {
        Create($"cluster_size=64k,lazy_refcounts={(inHeader ? "on" : "off")}");
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image image = await Qcow2Image.OpenAsync(_path, new Qcow2OpenOptions { Access = ImageAccess.Write, LazyRefcounts = inOptions });
            await image.ReadAsync(0, new byte[512]);
            await image.FlushAsync();
            Assert.Equal(0UL, Field(72));
            await image.WriteAsync(0, new byte[65536], fua: true);
            Assert.Equal(expected, Field(72));
        });
        Assert.Equal(0UL, Field(72));
        await Judge.FindsCleanAsync(_path);
    }

    [Theory]
    [InlineData(28)] // no space: what was taken is given back
    [InlineData(5)] // input/output error: what was taken leaks
    public async Task A_growth_that_fails_forgets_nothing_of_the_dirty_bit(int errorNumber)
    {
        Create("cluster_size=4k,lazy_refcounts=on");
        byte[] before = File.ReadAllBytes(_path);
        int failures = 0;
        bool failed = true;
        for (int room = 0; failed; room += 3)
        {
            var file = MemoryFile.Load(before, new MemoryFile());
            long limit = file.LengthBytes + (room * 4096L);
            bool hasStopped = false;
            await Exclusive.Run(async () =>
            {
                Qcow2Image image = await Qcow2Image.OpenAsync(file, Disk.Writing(4096));
                file.Fault = (operation, offset) => offset >= limit && operation is FileOperation.Write or FileOperation.SetLength ? errorNumber : 0;
                failed = await Record.ExceptionAsync(() => image.ResizeAsync(image.VirtualBytes + (100 * 4096), Preallocation.Full)) is not null;
                file.Fault = (_, _) => 0;
                hasStopped = image.HasFailed;
                await image.CloseAsync();
            });
            if (hasStopped)
                continue;
            File.WriteAllBytes(_path, file.ToArray());
            Assert.Equal(0UL, Field(72));
            await Judge.OwnCheckFindsAtMostLeaksAsync(_path);
            failures += failed ? 1 : 0;
        }
        Assert.True(failures > 3, $"only {failures} growths failed");
        await Judge.FindsCleanAsync(_path);
    }

    [Fact]
    public async Task Lazy_refcounts_take_version_3()
    {
        Create("compat=0.10");
        var options = new Qcow2OpenOptions { Access = ImageAccess.Write, LazyRefcounts = true };
        Qcow2Exception error = await Assert.ThrowsAsync<Qcow2Exception>(() => Exclusive.Run(() => Qcow2Image.OpenAsync(_path, options)));
        Assert.Equal("Lazy refcounts require a qcow2 image with at least qemu 1.1 compatibility level", error.Message);
    }

    [Theory]
    [InlineData("1.1", "L2 table offset")]
    [InlineData("1.1", "Cluster allocation offset")]
    [InlineData("1.1", "Preallocated zero cluster offset")]
    [InlineData("0.10", "L2 table offset")]
    [InlineData("0.10", "Cluster allocation offset")]
    [InlineData("0.10", "Zero cluster entry found in pre-v3 image")]
    public async Task A_broken_pointer_that_is_met_stops_a_writable_image_and_marks_it_corrupt(string compat, string expected)
    {
        Create($"cluster_size=64k,compat={compat}");
        Disk.QemuIo(_path, "write -P 0x77 0 1M");
        Break(expected);
        await Exclusive.Run(async () =>
        {
            // A reader gets the error, and nothing is written.
            await using (Qcow2Image image = await OpenAsync(ImageAccess.Read))
            {
                Qcow2Exception error = await Assert.ThrowsAnyAsync<Qcow2Exception>(async () => await image.ReadAsync(0, new byte[512]));
                Assert.Contains("qcow2: Image is corrupt: " + expected, error.Message, StringComparison.Ordinal);
            }
            Assert.Equal(0UL, compat == "1.1" ? Field(72) : 0);
            await using (Qcow2Image image = await OpenAsync(ImageAccess.Write))
            {
                Qcow2Exception error = await Assert.ThrowsAnyAsync<Qcow2Exception>(async () => await image.WriteAsync(0, new byte[512]));
                Assert.Contains("qcow2: Marking image as corrupt: " + expected, error.Message, StringComparison.Ordinal);
                await Assert.ThrowsAnyAsync<Qcow2Exception>(async () => await image.WriteAsync(512 << 10, new byte[512]));
                await Assert.ThrowsAnyAsync<Qcow2Exception>(async () => await image.FlushAsync());
            }
            Assert.Equal(compat == "1.1" ? 2UL : 0, compat == "1.1" ? Field(72) : 0);
        });
        if (compat == "1.1")
            Assert.Contains("corrupt", (await RefusedAsync(ImageAccess.Write)).Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("discard")]
    [InlineData("zero")]
    [InlineData("long write")]
    public async Task A_broken_pointer_in_the_middle_of_a_range_frees_nothing(string operation)
    {
        Create("cluster_size=64k");
        Disk.QemuIo(_path, "write -P 0x77 0 1M");
        long l2 = (long)Field((long)Field(40) & 0x00ff_ffff_ffff_fe00) & 0x00ff_ffff_ffff_fe00;
        byte[] entry = new byte[8];
        // Unaligned, inside the cluster of the first entry, and not copied.
        BinaryPrimitives.WriteUInt64BigEndian(entry, (Field(l2) & 0x00ff_ffff_ffff_fe00) + 512);
        WriteAt(l2 + 16, entry);
        // Not copied either, so that a write allocates across them.
        BinaryPrimitives.WriteUInt64BigEndian(entry, 0);
        WriteAt(l2 + 8, entry);
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image image = await OpenAsync(ImageAccess.Write);
            Qcow2Exception error = await Assert.ThrowsAnyAsync<Qcow2Exception>(async () => await (operation switch
            {
                "discard" => image.DiscardAsync(65536, 4 * 65536),
                "zero" => image.WriteZeroesAsync(65536, 4 * 65536, mayUnmap: true),
                _ => image.WriteAsync(65536, new byte[4 * 65536]),
            }));
            Assert.Contains("unaligned", error.Message, StringComparison.Ordinal);
        });
        Assert.Equal(2UL, Field(72));
        Tool.Run("qemu-io", "-r", "-f", "qcow2", "-c", "read -P 0x77 0 64k", _path);
    }

    [Theory]
    [InlineData(0, new byte[] { 0 }, "Image is not in qcow2 format")]
    [InlineData(4, new byte[] { 0, 0, 0, 4 }, "Unsupported qcow2 version 4")]
    [InlineData(20, new byte[] { 0, 0, 0, 8 }, "Unsupported cluster size: 2^8")]
    [InlineData(20, new byte[] { 0, 0, 0, 22 }, "Unsupported cluster size: 2^22")]
    [InlineData(100, new byte[] { 0, 0, 0, 96 }, "qcow2 header too short")]
    [InlineData(100, new byte[] { 0, 2, 0, 0 }, "qcow2 header exceeds cluster size")]
    [InlineData(96, new byte[] { 0, 0, 0, 7 }, "Reference count entry width too large; may not exceed 64 bits")]
    [InlineData(8, new byte[] { 0, 0, 0, 0, 0, 2, 0, 0 }, "Invalid backing file offset")]
    [InlineData(56, new byte[] { 0, 0, 0, 0 }, "Image does not contain a reference count table")]
    [InlineData(56, new byte[] { 0xff, 0xff, 0xff, 0xff }, "Reference count table too large")]
    [InlineData(55, new byte[] { 1 }, "Reference count table offset invalid")]
    [InlineData(60, new byte[] { 0x7f, 0, 0, 0 }, "Snapshot table too large")]
    [InlineData(71, new byte[] { 1 }, "Snapshot table offset invalid")]
    [InlineData(36, new byte[] { 0xff, 0xff, 0xff, 0xff }, "Active L1 table too large")]
    [InlineData(47, new byte[] { 1 }, "Active L1 table offset invalid")]
    [InlineData(36, new byte[] { 0, 0, 0, 0 }, "L1 table is too small")]
    [InlineData(104, new byte[] { 1 }, "Compression type incompatible feature bit must be set")]
    public async Task A_header_that_breaks_the_specification_is_refused_with_QEMUs_words(int at, byte[] bytes, string expected)
    {
        Create("cluster_size=64k");
        WriteAt(at, bytes);
        Assert.Contains(expected, (await RefusedAsync(ImageAccess.Read)).Message, StringComparison.Ordinal);
        Assert.Contains(expected, Tool.Try("qemu-io", "-f", "qcow2", "-r", "-c", "read 0 512", _path).Output, StringComparison.OrdinalIgnoreCase);
    }

    private void Create(string options) => Disk.Create(_path, 1 << 20, options);

    private Task<Qcow2Image> OpenAsync(ImageAccess access) => Qcow2Image.OpenAsync(_path, new Qcow2OpenOptions { Access = access });

    private Task<Qcow2Exception> RefusedAsync(ImageAccess access) => Assert.ThrowsAnyAsync<Qcow2Exception>(() => OpenAsync(access));

    private Task ReadsPatternAsync(byte pattern) => Exclusive.Run(async () =>
    {
        await using Qcow2Image image = await OpenAsync(ImageAccess.Read);
        byte[] bytes = new byte[1 << 20];
        await image.ReadAsync(0, bytes);
        Assert.False(bytes.AsSpan().ContainsAnyExcept(pattern));
    });

    /// <summary>Damages the pointer that the message is about, on the way to the first guest cluster.</summary>
    private void Break(string message)
    {
        long l1 = (long)Field(40);
        long l2 = (long)(Field(l1) & 0x00ff_ffff_ffff_fe00);
        byte[] entry = new byte[8];
        if (message.StartsWith("L2 table", StringComparison.Ordinal))
        {
            BinaryPrimitives.WriteUInt64BigEndian(entry, Field(l1) + 512);
            WriteAt(l1, entry);
            return;
        }
        ulong damage = message.StartsWith("Cluster", StringComparison.Ordinal) ? 512UL
            : message.StartsWith("Preallocated", StringComparison.Ordinal) ? 513UL : 1UL;
        BinaryPrimitives.WriteUInt64BigEndian(entry, Field(l2) + damage);
        WriteAt(l2, entry);
    }

    private static int IndexOfExtension(byte[] header, uint type)
    {
        int at = (int)BinaryPrimitives.ReadUInt32BigEndian(header.AsSpan(100));
        while (BinaryPrimitives.ReadUInt32BigEndian(header.AsSpan(at)) is var found && found != type)
        {
            Assert.NotEqual(0u, found);
            at += 8 + (int)((BinaryPrimitives.ReadUInt32BigEndian(header.AsSpan(at + 4)) + 7) & ~7u);
        }
        return at;
    }

    private byte[] ReadHeader()
    {
        byte[] header = new byte[ClusterBytes];
        using FileStream file = OpenFile();
        file.ReadAtLeast(header, ClusterBytes, throwOnEndOfStream: false);
        return header;
    }

    private ulong Field(long at)
    {
        byte[] field = new byte[8];
        using FileStream file = OpenFile();
        file.Position = at;
        file.ReadExactly(field);
        return BinaryPrimitives.ReadUInt64BigEndian(field);
    }

    private void WriteAt(long at, byte[] bytes)
    {
        using FileStream file = OpenFile();
        file.Position = at;
        file.Write(bytes);
    }

    private FileStream OpenFile() => new(_path, FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite | FileShare.Delete);
}
