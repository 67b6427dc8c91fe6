using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Data;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Interop.Tests;

/// <summary>Overlays of warm backing files: what shows through, what is copied, and that the backing file never changes.</summary>
public sealed class OverlayTests
{
    public enum Naming
    {
        Relative,
        Absolute,
        RelativeWithoutFormat,
    }

    public static TheoryData<string, Naming, int, int> Overlays()
    {
        var data = new TheoryData<string, Naming, int, int>();
        foreach (string format in (string[])["raw", "qcow2"])
        {
            foreach (Naming naming in Enum.GetValues<Naming>())
            {
                data.Add(format, naming, 3, 65536);
                data.Add(format, naming, 2, 4096);
            }
            data.Add(format, Naming.Relative, 3, 512);
            data.Add(format, Naming.Relative, 3, 1 << 20);
        }
        return data;
    }

    [Theory]
    [MemberData(nameof(Overlays))]
    public async Task Random_writes_over_a_shorter_backing_file_leave_it_untouched(string format, Naming naming, int version, int clusterBytes)
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = directory.File("overlay.qcow2");
        byte[] warm = Disk.MixedBytes((1 << 20) + 700, seed: 1);
        string backing = MakeBacking(directory, "base", format, warm);
        byte[] model = new byte[(2 << 20) + 1024];
        warm.CopyTo(model, 0);
        string before = Judge.Fingerprint(backing);
        await Exclusive.Run(async () =>
        {
            await using (var file = LocalBlockFile.Create(path))
            {
                await CreateOperation.CreateAsync(file, new CreateOptions
                {
                    VirtualBytes = model.Length,
                    Version = version,
                    ClusterBytes = clusterBytes,
                    BackingFile = naming == Naming.Absolute ? backing : "base",
                    BackingFormat = naming == Naming.RelativeWithoutFormat ? null : format,
                });
            }
            await Disk.ScribbleAsync(path, model, seed: clusterBytes + version, Disk.Writing(clusterBytes), groups: 30, maxBytes: 150_000);
        });
        await Judge.FindsCleanAsync(path);
        Judge.ReadsAs(path, model);
        Assert.Equal(before, Judge.Fingerprint(backing));
    }

    [Fact]
    public async Task A_chain_of_four_images_with_different_cluster_sizes_reads_and_writes_as_one_disk()
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        byte[] model = new byte[3 << 20];
        byte[] warm = Disk.MixedBytes(900_000, seed: 2);
        warm.CopyTo(model, 0);
        File.WriteAllBytes(directory.File("0"), warm);
        (string Options, int ClusterBytes)[] layers =
            [("compat=0.10,cluster_size=512", 512), ("compat=1.1,cluster_size=2M", 2 << 20), ("compat=1.1,cluster_size=4k,refcount_bits=1", 4096), ("compat=0.10,cluster_size=64k", 65536)];
        for (int layer = 1; layer <= layers.Length; layer++)
        {
            string path = directory.File($"{layer}");
            (string options, int clusterBytes) = layers[layer - 1];
            Disk.CreateOverlay(path, $"{layer - 1}", layer == 1 ? "raw" : "qcow2", model.Length, options);
            string below = Judge.Fingerprint(directory.File($"{layer - 1}"));
            await Exclusive.Run(() => Disk.ScribbleAsync(path, model, seed: layer, Disk.Writing(clusterBytes), groups: 12, maxBytes: 100_000));
            await Judge.FindsCleanAsync(path);
            Judge.ReadsAs(path, model);
            Assert.Equal(below, Judge.Fingerprint(directory.File($"{layer - 1}")));
        }
    }

    [Fact]
    public async Task A_write_into_part_of_a_cluster_brings_the_rest_from_the_backing_file()
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = directory.File("overlay");
        byte[] warm = Enumerable.Repeat((byte)0x5a, (3 * 65536) + 700).ToArray();
        MakeBacking(directory, "base", "raw", warm);
        Disk.CreateOverlay(path, "base", "raw", 5 * 65536);
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image image = await Qcow2Image.OpenAsync(path, Disk.Writing(65536));
            await image.WriteAsync(65536 + 100, Enumerable.Repeat((byte)0x11, 50).ToArray());
            await image.WriteAsync((3 * 65536) + 10_000, Enumerable.Repeat((byte)0x22, 50).ToArray()); // its head ends the backing file
            Assert.Equal(DiskExtentState.Data, (await image.GetExtentAsync(65536, 65536)).State);
            Assert.Equal(DiskExtentState.Unallocated, (await image.GetExtentAsync(0, 65536)).State);
        });
        await Judge.FindsCleanAsync(path);
        Disk.QemuIo(path, "read -P 0x5a 0 65636", "read -P 0x11 65636 50", "read -P 0x5a 65686 130922",
            "read -P 0x5a 196608 700", "read -P 0 197308 9300", "read -P 0x22 206608 50", "read -P 0 206658 121022");
    }

    [Theory]
    [InlineData("1.1", true)]
    [InlineData("1.1", false)]
    [InlineData("0.10", true)]
    [InlineData("0.10", false)]
    public async Task Zeros_written_over_a_backing_file_hide_it_in_either_version(string compat, bool mayUnmap)
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = directory.File("overlay");
        MakeBacking(directory, "base", "raw", Enumerable.Repeat((byte)0x5a, 8 * 65536).ToArray());
        Disk.CreateOverlay(path, "base", "raw", 8 * 65536, $"compat={compat}");
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image image = await Qcow2Image.OpenAsync(path, Disk.Writing(65536));
            await image.WriteAsync(65536, Enumerable.Repeat((byte)0x33, 65536).ToArray());
            await image.WriteZeroesAsync(65536, 2 * 65536, mayUnmap);
            await image.WriteZeroesAsync((4 * 65536) + 1000, 2 * 65536, mayUnmap);
            if (compat == "1.1")
                Assert.NotEqual(DiskExtentState.Data, (await image.GetExtentAsync(2 * 65536, 65536)).State);
        });
        await Judge.FindsCleanAsync(path);
        Disk.QemuIo(path, "read -P 0x5a 0 64k", "read -P 0 64k 128k", "read -P 0x5a 192k 66536", "read -P 0 263144 131072", "read -P 0x5a 394216 130072");
    }

    [Fact]
    public async Task A_discard_over_a_backing_file_reads_as_zeros_in_version_3_and_does_nothing_in_version_2()
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        MakeBacking(directory, "base", "raw", Enumerable.Repeat((byte)0x5a, 8 * 65536).ToArray());
        foreach (string compat in (string[])["1.1", "0.10"])
        {
            string path = directory.File($"overlay-{compat}");
            Disk.CreateOverlay(path, "base", "raw", (8 * 65536) - 512, $"compat={compat}");
            await Exclusive.Run(async () =>
            {
                await using Qcow2Image image = await Qcow2Image.OpenAsync(path, Disk.Writing(65536));
                await image.WriteAsync(65536, Enumerable.Repeat((byte)0x33, 65536).ToArray());
                await image.DiscardAsync(65536, 2 * 65536);
                await image.DiscardAsync((4 * 65536) + 512, 65536); // no whole cluster
                await image.DiscardAsync(7 * 65536, 65536 - 512); // the last one, cut by the end of the disk
                DiskExtentState expected = compat == "1.1" ? DiskExtentState.Zero : DiskExtentState.Data;
                Assert.Equal(expected, (await image.GetExtentAsync(65536, 65536)).State);
            });
            await Judge.FindsCleanAsync(path);
            Disk.QemuIo(path, compat == "1.1"
                ? ["read -P 0x5a 0 64k", "read -P 0 64k 128k", "read -P 0x5a 192k 256k", "read -P 0 448k 65024"]
                : ["read -P 0x5a 0 64k", "read -P 0x33 64k 64k", "read -P 0x5a 128k 392704"]);
        }
    }

    [Theory]
    [InlineData("json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"file\",\"filename\":\"/etc/passwd\"}}", "qcow2", "json:")]
    [InlineData("nbd://localhost:10809/disk", "raw", "nbd://localhost:10809/disk")]
    [InlineData("nbd:unix:/run/nbd.sock", "raw", "nbd:unix:/run/nbd.sock")]
    [InlineData("nothing-here.qcow2", "qcow2", "nothing-here.qcow2': No such file or directory")]
    [InlineData("other", "vmdk", "vmdk")]
    public async Task A_backing_file_that_is_none_is_refused_by_name(string name, string format, string expected)
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        string path = directory.File("overlay");
        File.WriteAllBytes(directory.File("other"), new byte[65536]);
        Disk.CreateOverlay(path, name, format, 1 << 20);
        foreach (ImageAccess access in Enum.GetValues<ImageAccess>())
        {
            var options = new Qcow2OpenOptions { Access = access };
            Qcow2Exception error = await Assert.ThrowsAnyAsync<Qcow2Exception>(() => Qcow2Image.OpenAsync(path, options));
            Assert.Contains(expected, error.Message, StringComparison.Ordinal);
        }
        // Nothing of the failed opens is left: QEMU gets the file for writing.
        Tool.Run("qemu-img", "rebase", "-u", "-b", "", path);
        await Exclusive.Run(async () => await (await Qcow2Image.OpenAsync(path, Disk.Writing(65536))).CloseAsync());
    }

    [Theory]
    [InlineData(1)]
    [InlineData(3)]
    public async Task A_backing_chain_that_is_a_loop_is_refused_with_a_short_message(int length)
    {
        using var directory = new TemporaryDirectory(inMemory: true);
        for (int i = 0; i < length; i++)
            Disk.CreateOverlay(directory.File($"disk{i}"), $"disk{(i + 1) % length}", "qcow2", 1 << 20);
        foreach (ImageAccess access in Enum.GetValues<ImageAccess>())
        {
            var options = new Qcow2OpenOptions { Access = access };
            IOException error = await Assert.ThrowsAnyAsync<IOException>(() => Qcow2Image.OpenAsync(directory.File("disk0"), options));
            Assert.Contains("loop", error.Message, StringComparison.Ordinal);
            Assert.True(error.Message.Length < 500, error.Message);
        }
    }

    private static string MakeBacking(TemporaryDirectory directory, string name, string format, byte[] bytes)
    {
        string path = directory.File(name);
        File.WriteAllBytes(format == "raw" ? path : path + ".raw", bytes);
        if (format != "raw")
            Tool.Run("qemu-img", "convert", "-q", "-f", "raw", "-O", "qcow2", "-o", "cluster_size=8k", path + ".raw", path);
        return path;
    }
}
