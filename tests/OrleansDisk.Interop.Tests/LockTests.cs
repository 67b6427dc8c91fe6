using System.Diagnostics;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Interop.Tests;

/// <summary>Who may open an image while another has it: QEMU and this engine, both ways round.</summary>
public sealed class LockTests : IDisposable
{
    private readonly TemporaryDirectory _directory = new(inMemory: true);
    private readonly string _path;

    public LockTests()
    {
        _path = _directory.File("disk");
        Disk.Create(_path, 1 << 20, "cluster_size=64k");
    }

    public void Dispose() => _directory.Dispose();

    [Fact]
    public Task While_we_write_QEMU_gets_neither_a_writer_nor_a_reader() => Exclusive.Run(async () =>
    {
        Qcow2Image image = await OpenAsync(ImageAccess.Write);
        Assert.Contains("Failed to get \"write\" lock", QemuIo("write 0 512"), StringComparison.Ordinal);
        Assert.Contains("Failed to get shared \"write\" lock", QemuIo("read 0 512", "-r"), StringComparison.Ordinal);
        Assert.DoesNotContain("Failed", QemuIo("read 0 512", "-r", "-U"), StringComparison.Ordinal);
        (int status, string output) = Tool.Try("qemu-img", "info", _path);
        Assert.NotEqual(0, status);
        Assert.Contains("Failed to get shared \"write\" lock", output, StringComparison.Ordinal);
        await image.CloseAsync();
        Assert.DoesNotContain("Failed", QemuIo("write 0 512"), StringComparison.Ordinal);
    });

    [Fact]
    public Task While_we_read_QEMU_reads_and_does_not_write() => Exclusive.Run(async () =>
    {
        await using Qcow2Image image = await OpenAsync(ImageAccess.Read);
        Assert.Contains("Failed to get \"write\" lock", QemuIo("write 0 512"), StringComparison.Ordinal);
        Assert.DoesNotContain("Failed", QemuIo("read 0 512", "-r"), StringComparison.Ordinal);
        await using Qcow2Image other = await OpenAsync(ImageAccess.Read);
        await other.ReadAsync(0, new byte[512]);
    });

    [Fact]
    public async Task While_QEMU_writes_we_get_its_words_and_the_name_of_the_process()
    {
        using var qemu = new HeldImage(_path);
        ImageLockedException error = await Assert.ThrowsAsync<ImageLockedException>(() => OpenAsync(ImageAccess.Write));
        Assert.Contains("Failed to get \"write\" lock", error.Message, StringComparison.Ordinal);
        Assert.Contains($"Is another process using the image [{_path}]?", error.Message, StringComparison.Ordinal);
        Assert.Contains($"qemu-io (process {qemu.ProcessId})", error.Message, StringComparison.Ordinal);
        error = await Assert.ThrowsAsync<ImageLockedException>(() => OpenAsync(ImageAccess.Read));
        Assert.Contains("Failed to get shared \"write\" lock", error.Message, StringComparison.Ordinal);
        Assert.Contains($"qemu-io (process {qemu.ProcessId})", error.Message, StringComparison.Ordinal);
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image image = await OpenAsync(ImageAccess.ReadShared);
            await image.ReadAsync(0, new byte[512]);
        });
        qemu.Close();
        await Exclusive.Run(async () => await (await OpenAsync(ImageAccess.Write)).CloseAsync());
    }

    [Fact]
    public async Task While_QEMU_reads_we_read_and_do_not_write()
    {
        using var qemu = new HeldImage(_path, "-r");
        ImageLockedException error = await Assert.ThrowsAsync<ImageLockedException>(() => OpenAsync(ImageAccess.Write));
        Assert.Contains("Failed to get \"write\" lock", error.Message, StringComparison.Ordinal);
        Assert.Contains($"(process {qemu.ProcessId})", error.Message, StringComparison.Ordinal);
        await Exclusive.Run(async () => await (await OpenAsync(ImageAccess.Read)).CloseAsync());
    }

    [Fact]
    public Task Two_handles_in_one_process_exclude_each_other_and_closing_one_keeps_the_locks_of_the_other() => Exclusive.Run(async () =>
    {
        Qcow2Image image = await OpenAsync(ImageAccess.Write);
        foreach (ImageAccess access in (ImageAccess[])[ImageAccess.Write, ImageAccess.Read])
        {
            ImageLockedException error = await Assert.ThrowsAsync<ImageLockedException>(() => OpenAsync(access));
            Assert.Contains($"(process {Environment.ProcessId})", error.Message, StringComparison.Ordinal);
        }
        await (await OpenAsync(ImageAccess.ReadShared)).CloseAsync();
        Assert.Contains("Failed to get \"write\" lock", QemuIo("write 0 512"), StringComparison.Ordinal);
        await image.CloseAsync();
        await (await OpenAsync(ImageAccess.Write)).CloseAsync();
    });

    [Fact]
    public async Task A_backing_file_in_use_by_an_overlay_is_not_written_by_anyone()
    {
        string overlay = _directory.File("overlay");
        Disk.CreateOverlay(overlay, "disk", "qcow2", 1 << 20);
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image image = await Qcow2Image.OpenAsync(overlay, Disk.Writing(65536));
            Assert.Contains("Failed to get \"write\" lock", QemuIo("write 0 512"), StringComparison.Ordinal);
            await Assert.ThrowsAsync<ImageLockedException>(() => OpenAsync(ImageAccess.Write));
            await (await OpenAsync(ImageAccess.Read)).CloseAsync();
        });
        using var qemu = new HeldImage(_path);
        ImageLockedException error = await Assert.ThrowsAsync<ImageLockedException>(() => Qcow2Image.OpenAsync(overlay, Disk.Writing(65536)));
        Assert.Contains(_path, error.Message, StringComparison.Ordinal);
    }

    private Task<Qcow2Image> OpenAsync(ImageAccess access) => Qcow2Image.OpenAsync(_path, new Qcow2OpenOptions { Access = access });

    private string QemuIo(string command, params string[] flags) => Tool.Try("qemu-io", [.. flags, "-f", "qcow2", "-c", command, _path]).Output;

    /// <summary>A qemu-io that has an image open until it is told to quit.</summary>
    private sealed class HeldImage : IDisposable
    {
        private readonly Process _process;

        public HeldImage(string path, params string[] flags)
        {
            var start = new ProcessStartInfo("qemu-io", [.. flags, "-f", "qcow2", path]) { RedirectStandardInput = true, RedirectStandardOutput = true };
            _process = Tool.Start(start);
            // Its prompt comes when the image is open.
            Assert.True(_process.StandardOutput.Read() >= 0, "qemu-io did not open the image");
        }

        public int ProcessId => _process.Id;

        public void Close()
        {
            _process.StandardInput.WriteLine("quit");
            _process.StandardOutput.ReadToEnd();
            _process.WaitForExit();
        }

        public void Dispose()
        {
            if (!_process.HasExited)
                Close();
            _process.Dispose();
        }
    }
}
