using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Data;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Interop.Tests;

/// <summary>Images whose guest data lies in a file of its own, raw by itself or not.</summary>
public sealed class DataFileTests : IDisposable
{
    private const int ClusterBytes = 64 << 10;
    private readonly TemporaryDirectory _directory = new(inMemory: true);

    public void Dispose() => _directory.Dispose();

    private string Image => _directory.File("disk");

    private string Data => _directory.File("disk.data");

    [Theory]
    [InlineData("cluster_size=64k")]
    [InlineData("cluster_size=4k,refcount_bits=1")]
    [InlineData("cluster_size=2M,preallocation=metadata")]
    [InlineData("cluster_size=64k,extended_l2=on")]
    [InlineData("cluster_size=64k,data_file_raw=on")]
    [InlineData("cluster_size=16k,extended_l2=on,data_file_raw=on")]
    public async Task Random_writes_leave_an_image_that_qemu_finds_clean_and_equal(string options)
    {
        byte[] model = new byte[(5 << 20) + 1536];
        Disk.Create(Image, model.Length, $"{options},data_file={Data}");
        await Exclusive.Run(() => Disk.ScribbleAsync(Image, model, seed: options.Length, Disk.Writing(ClusterBytes), groups: 60, maxBytes: 300_000));
        await Judge.FindsCleanAsync(Image);
        Judge.ReadsAs(Image, model);
        if (options.Contains("raw", StringComparison.Ordinal))
            Assert.True(File.ReadAllBytes(Data).AsSpan(0, model.Length).SequenceEqual(model), "the data file by itself is not the disk");
        Assert.True(new FileInfo(Image).Length < 2 * 9 << 20, "guest data went into the image");
        Disk.QemuIo(Image, "write -P 0x77 1000 70000", "write -z 300k 40k", "read -P 0x77 1000 70000");
        await Judge.FindsCleanAsync(Image);
    }

    [Fact]
    public async Task Random_writes_over_a_backing_file_never_show_what_the_data_file_held_before()
    {
        byte[] below = Disk.MixedBytes(3 << 20, seed: 8);
        File.WriteAllBytes(_directory.File("below"), below);
        byte[] model = new byte[4 << 20];
        below.CopyTo(model, 0);
        Disk.CreateOverlay(Image, "below", "raw", model.Length, $"data_file={Data}");
        File.WriteAllBytes(Data, [.. Enumerable.Repeat((byte)0xde, model.Length)]); // nothing leads to it
        await Exclusive.Run(() => Disk.ScribbleAsync(Image, model, seed: 2, Disk.Writing(ClusterBytes), groups: 60, maxBytes: 200_000));
        await Judge.FindsCleanAsync(Image);
        Judge.ReadsAs(Image, model);
    }

    [Theory]
    [InlineData("off", false)]
    [InlineData("off", true)]
    [InlineData("metadata", false)]
    public async Task Created_images_are_those_of_qemu_and_qemu_writes_them(string preallocation, bool isRaw)
    {
        const long bytes = 900L << 20; // two L2 tables
        string theirs = _directory.File("theirs");
        Disk.Create(theirs, bytes, $"data_file={_directory.File("x")},preallocation={preallocation},data_file_raw={(isRaw ? "on" : "off")}");
        await CreateOperation.CreateAsync(Image, new CreateOptions
        {
            VirtualBytes = bytes,
            DataFile = _directory.File("y"),
            DataFileRaw = isRaw,
            Preallocation = preallocation == "off" ? Preallocation.Off : Preallocation.Metadata,
        });
        byte[] expected = File.ReadAllBytes(theirs);
        byte[] actual = File.ReadAllBytes(Image);
        int name = expected.AsSpan().IndexOf("/x"u8) + 1;
        expected[name] = (byte)'y';
        Assert.True(actual.AsSpan().SequenceEqual(expected), $"differ at 0x{actual.AsSpan().CommonPrefixLength(expected):x}");
        Assert.Equal(bytes, new FileInfo(_directory.File("y")).Length);
        Disk.QemuIo(Image, "write -P 0x31 100k 200k", "read -P 0x31 100k 200k");
        await Judge.FindsCleanAsync(Image);
    }

    [Fact]
    public async Task A_name_is_relative_to_the_directory_of_the_image()
    {
        await CreateOperation.CreateAsync(Image, new CreateOptions { VirtualBytes = 1 << 20, DataFile = "disk.data" });
        Assert.Equal(1 << 20, new FileInfo(Data).Length);
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image image = await Qcow2Image.OpenAsync(Image, Disk.Writing(ClusterBytes));
            await image.WriteAsync(5, "data"u8.ToArray());
        });
        Assert.Equal("data", System.Text.Encoding.ASCII.GetString(File.ReadAllBytes(Data), 5, 4));
    }

    [Fact]
    public async Task A_failed_create_leaves_the_data_file_that_was_there_and_takes_its_own_away()
    {
        File.WriteAllText(Data, "precious");
        var options = new CreateOptions { VirtualBytes = 1 << 20, DataFile = Data, ClusterBytes = 3000 };
        await Assert.ThrowsAsync<Qcow2Exception>(() => CreateOperation.CreateAsync(Image, options));
        await Assert.ThrowsAsync<Qcow2Exception>(() => CreateOperation.CreateAsync(_directory.File("none/disk"), options with { ClusterBytes = ClusterBytes }));
        await Assert.ThrowsAsync<Qcow2Exception>(() => CreateOperation.CreateAsync(Data, options with { ClusterBytes = ClusterBytes }));
        Assert.Equal("precious", File.ReadAllText(Data));
        string other = _directory.File("other");
        await Assert.ThrowsAsync<Qcow2Exception>(() =>
            CreateOperation.CreateAsync(_directory.File("none/disk"), options with { ClusterBytes = ClusterBytes, DataFile = other }));
        Assert.False(File.Exists(other));
    }

    [Fact]
    public async Task The_first_cluster_lies_at_offset_0_and_is_allocated_by_its_copied_flag()
    {
        Disk.Create(Image, 1 << 20, $"data_file={Data}");
        Disk.QemuIo(Image, "write -P 0xaa 0 64k");
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image image = await Qcow2Image.OpenAsync(Image, Disk.Writing(ClusterBytes));
            DiskExtent extent = await image.GetExtentAsync(0, 1 << 20);
            Assert.Equal((ClusterBytes, DiskExtentState.Data, 0L), ((int)extent.Bytes, extent.State, extent.HostOffset));
            byte[] read = new byte[2];
            await image.ReadAsync(0, read);
            Assert.Equal([0xaa, 0xaa], read);
            await image.DiscardAsync(0, ClusterBytes);
            Assert.Equal(DiskExtentState.Zero, (await image.GetExtentAsync(0, ClusterBytes)).State);
            await image.WriteAsync(1, new byte[] { 1 });
        });
        await Judge.FindsCleanAsync(Image);
        Disk.QemuIo(Image, "read -P 0 0 1", "read -P 1 1 1", "read -P 0 2 65534");
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task A_discard_punches_a_hole_when_that_is_asked_for(bool passDiscard)
    {
        Disk.Create(Image, 4 << 20, $"data_file={Data}");
        Disk.QemuIo(Image, "write -P 0xaa 0 4M");
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image image = await Qcow2Image.OpenAsync(Image, Disk.Writing(ClusterBytes) with { PassDiscard = passDiscard });
            await image.DiscardAsync(1 << 20, 1 << 20);
            await image.FlushAsync();
        });
        Assert.Equal(passDiscard ? 0 : 0xaa, File.ReadAllBytes(Data)[(1 << 20) + 1000]);
        Assert.Equal(0xaa, File.ReadAllBytes(Data)[(2 << 20) + 1000]);
        Disk.QemuIo(Image, "read -P 0 1M 1M", "read -P 0xaa 2M 2M");
        await Judge.FindsCleanAsync(Image);
    }

    [Fact]
    public async Task In_a_raw_data_file_zeros_and_discards_are_really_there_and_stay_mapped()
    {
        byte[] model = new byte[2 << 20];
        Disk.Create(Image, model.Length, $"data_file={Data},data_file_raw=on");
        Disk.QemuIo(Image, "write -P 0xaa 0 2M");
        model.AsSpan().Fill(0xaa);
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image image = await Qcow2Image.OpenAsync(Image, Disk.Writing(ClusterBytes));
            await image.WriteZeroesAsync(100, 200_000, mayUnmap: false);
            await image.WriteZeroesAsync(300_000, 200_000, mayUnmap: true);
            await image.DiscardAsync(1 << 20, 1 << 19);
            model.AsSpan(100, 200_000).Clear();
            model.AsSpan(300_000, 200_000).Clear();
            model.AsSpan(1 << 20, 1 << 19).Clear();
            DiskExtent extent = await image.GetExtentAsync(0, model.Length);
            Assert.Equal((model.Length, DiskExtentState.Data), ((int)extent.Bytes, extent.State));
            await image.ResizeAsync(3 << 20);
            Assert.Equal(3 << 20, (await image.GetExtentAsync(0, 3 << 20)).Bytes);
            await image.WriteAsync((3 << 20) - 1, new byte[] { 9 });
        });
        model = [.. model, .. new byte[(1 << 20) - 1], 9];
        Assert.True(File.ReadAllBytes(Data).AsSpan().SequenceEqual(model));
        Judge.ReadsAs(Image, model);
        await Judge.FindsCleanAsync(Image);
    }

    [Fact]
    public async Task A_raw_disk_that_grows_shows_nothing_that_a_longer_data_file_held()
    {
        Disk.Create(Image, (1 << 20) + 512, $"data_file={Data},data_file_raw=on");
        using (FileStream file = File.OpenWrite(Data))
        {
            file.Position = (1 << 20) + 512;
            file.Write([.. Enumerable.Repeat((byte)0xde, 2 << 20)]);
        }
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image image = await Qcow2Image.OpenAsync(Image, Disk.Writing(ClusterBytes));
            await image.ResizeAsync(2 << 20);
        });
        Disk.QemuIo(Image, "read -P 0 0 2M");
        Assert.True(File.ReadAllBytes(Data).AsSpan(0, 2 << 20).IndexOfAnyExcept((byte)0) < 0);
        await Judge.FindsCleanAsync(Image);
    }

    [Fact]
    public async Task The_data_file_is_locked_with_the_image()
    {
        Disk.Create(Image, 1 << 20, $"data_file={Data}");
        await Exclusive.Run(async () =>
        {
            await using (Qcow2Image image = await Qcow2Image.OpenAsync(Image, Disk.Writing(ClusterBytes)))
                Assert.Contains("lock", Tool.Try("qemu-io", "-f", "raw", "-c", "write 0 512", Data).Output, StringComparison.Ordinal);
            await using var other = LocalBlockFile.Open(Data, ImageAccess.Write);
            await Assert.ThrowsAsync<ImageLockedException>(() => Qcow2Image.OpenAsync(Image, Disk.Writing(ClusterBytes)));
        });
    }

    [Fact]
    public async Task A_data_file_takes_the_place_of_the_one_that_the_header_names()
    {
        Disk.Create(Image, 1 << 20, $"data_file={Data}");
        Disk.QemuIo(Image, "write -P 0xaa 0 64k");
        File.Move(Data, _directory.File("moved"));
        await Exclusive.Run(async () =>
        {
            var options = new Qcow2OpenOptions();
            Qcow2Exception error = await Assert.ThrowsAsync<Qcow2Exception>(() => Qcow2Image.OpenAsync(Image, options));
            Assert.Contains(Data, error.Message, StringComparison.Ordinal);
            await using Qcow2Image image = await Qcow2Image.OpenAsync(
                Image, options with { DataFile = LocalBlockFile.Open(_directory.File("moved"), ImageAccess.Read) });
            byte[] read = new byte[1];
            await image.ReadAsync(100, read);
            Assert.Equal(0xaa, read[0]);
        });
    }

    [Theory]
    [InlineData("json:{\"driver\":\"null-co\"}")]
    [InlineData("nbd:localhost:10809")]
    public async Task A_name_with_a_protocol_is_never_followed(string name)
    {
        await CreateOperation.CreateAsync(_directory.File("plain"), new CreateOptions { VirtualBytes = 1 << 20 });
        await Assert.ThrowsAsync<Qcow2UnsupportedException>(() =>
            CreateOperation.CreateAsync(Image, new CreateOptions { VirtualBytes = 1 << 20, DataFile = name }));
    }

    [Fact]
    public async Task An_entry_that_leads_elsewhere_is_damage()
    {
        Disk.Create(Image, 1 << 20, $"data_file={Data}");
        Disk.QemuIo(Image, "write -P 0xaa 64k 64k");
        Header header;
        await using (var file = LocalBlockFile.Open(Image, ImageAccess.Read))
            header = await HeaderReader.ReadAsync(file);
        byte[] bytes = File.ReadAllBytes(Image);
        long l2 = new L1Entry(System.Buffers.Binary.BinaryPrimitives.ReadUInt64BigEndian(bytes.AsSpan((int)header.L1Table.Bytes))).L2Table.Bytes;
        L2Entry.Data(new HostOffset(128 << 10), copied: true).WriteTo(bytes.AsSpan((int)l2), 1, header.Geometry);
        File.WriteAllBytes(Image, bytes);
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image image = await Qcow2Image.OpenAsync(Image, new Qcow2OpenOptions());
            using MappingLease lease = image.Lease();
            Qcow2Exception error = await Assert.ThrowsAnyAsync<Qcow2Exception>(() => image.ReadAsync(64 << 10, new byte[1]).AsTask());
            Assert.Contains("External data file host cluster offset 0x20000 does not match guest cluster offset: 0x10000", error.Message, StringComparison.Ordinal);
            Assert.False(lease.TryRead(64 << 10, new byte[1]));
        });
    }

    [Fact]
    public async Task A_lease_reads_and_overwrites_the_data_file()
    {
        Disk.Create(Image, 1 << 20, $"data_file={Data}");
        Disk.QemuIo(Image, "write -P 0xaa 0 128k");
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image image = await Qcow2Image.OpenAsync(Image, Disk.Writing(ClusterBytes));
            await image.WriteAsync(0, new byte[] { 1 });
            using MappingLease lease = image.Lease();
            byte[] read = new byte[128 << 10];
            Assert.True(lease.TryRead(0, read));
            Assert.Equal((1, 0xaa), (read[0], read[^1]));
            Assert.True(lease.TryWrite((64 << 10) - 1, [2, 3]));
            await image.FlushAsync();
        });
        Assert.Equal([2, 3], File.ReadAllBytes(Data).AsSpan((64 << 10) - 1, 2).ToArray());
        await Judge.FindsCleanAsync(Image);
    }
}
