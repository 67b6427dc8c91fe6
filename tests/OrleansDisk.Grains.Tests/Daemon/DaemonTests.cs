using System.Diagnostics;
using System.Net.Sockets;
using System.Text;
using OrleansDisk.Grains.Tests.Fixtures;
using OrleansDisk.Nbd.Tests.Fixtures;

namespace OrleansDisk.Grains.Tests.Daemon;

/// <summary>odiskd as a process, with real clients and real signals.</summary>
public sealed class DaemonTests
{
    [Fact]
    public async Task Every_image_of_a_pool_is_an_export()
    {
        using var pool = new PoolDirectory();
        await pool.CreateAsync("disk", "64M");
        await pool.CreateAsync("Größe 2", "1M");
        await File.WriteAllTextAsync(pool.File("notes.txt"), "no image");
        await File.WriteAllTextAsync(pool.File(".hidden.qcow2"), "no image");
        using RunningDaemon daemon = await RunningDaemon.StartAsync(
            pool, "--read-only-export", "safe=vm/disk", "--set", "Exports:safe:Description=not to be touched");
        string list = await Tool.RunAsync("nbdinfo", "--list", daemon.Uri(""));
        Assert.Equal(
            ["safe", "vm/Größe 2", "vm/disk"],
            list.Split('\n').Where(line => line.StartsWith("export=", StringComparison.Ordinal)).Select(line => line.Split('"')[1]));
        Assert.Contains("description: not to be touched", list, StringComparison.Ordinal);
        Assert.Contains("export-size: 67108864 (64M)", await Tool.RunAsync("nbdinfo", daemon.Uri("vm/disk")), StringComparison.Ordinal);
        Assert.Contains("is_read_only: true", await Tool.RunAsync("nbdinfo", daemon.Uri("safe")), StringComparison.Ordinal);
        (int exitCode, string output) = await Tool.TryAsync("nbdinfo", daemon.Uri("vm/none"));
        Assert.True(exitCode != 0, output);
        await pool.CreateAsync("late", "2M");
        Assert.Equal("2097152", (await Tool.RunAsync("nbdinfo", "--size", daemon.Uri("vm/late"))).Trim());
        Assert.Equal(0, await daemon.StopAsync(RunningDaemon.Interrupt));
        File.Delete(pool.File(".hidden.qcow2"));
        await pool.CheckAllAsync();
    }

    [Fact]
    public async Task With_certificates_every_client_must_use_tls()
    {
        using var pool = new PoolDirectory();
        await pool.CreateAsync("disk", "2M");
        string certificates = TlsFiles.Create(pool.File("tls"));
        using RunningDaemon daemon = await RunningDaemon.StartAsync(pool, "--set", $"Listen:Tls:Directory={certificates}");
        string options = $"driver=nbd,server.type=unix,server.path={pool.File("nbd.sock")},export=vm/disk,tls-creds=tls0,tls-hostname=disks.test";
        string credentials = $"tls-creds-x509,id=tls0,dir={certificates},endpoint=client";
        await Tool.RunAsync("qemu-io", "--object", credentials, "--image-opts", options, "-c", "write -P 5 0 1M", "-c", "read -P 5 0 1M");
        string plain = await Tool.RunAsync("sh", "-c", $"qemu-img info {daemon.Uri("vm/disk")} 2>&1; true");
        Assert.Contains("TLS negotiation required before option 7 (go)", plain, StringComparison.Ordinal);
        Assert.Equal(0, await daemon.StopAsync());
        await pool.CheckAllAsync();
    }

    [Fact]
    public async Task Nbdcopy_copies_an_image_in_and_out()
    {
        using var pool = new PoolDirectory();
        await pool.CreateAsync("disk", "64M");
        using RunningDaemon daemon = await RunningDaemon.StartAsync(pool);
        string pattern = "nbdkit -f -U - sparse-random 64M seed=5 percent=40 --run";
        await Tool.RunAsync("sh", "-c", $"{pattern} 'nbdcopy \"$uri\" \"{daemon.Uri("vm/disk")}\"'; exit $?");
        await Tool.RunAsync("sh", "-c", $"{pattern} 'nbdcopy \"{daemon.Uri("vm/disk")}\" \"$uri\"'; exit $?"); // nbdkit compares
        Assert.Equal(0, await daemon.StopAsync());
        await pool.CheckAllAsync();
        await Tool.RunAsync("sh", "-c",
            $"{pattern} 'nbdcopy \"$uri\" {pool.File("plain.raw")}'; qemu-img compare -f raw -F qcow2 {pool.File("plain.raw")} {pool.File("disk.qcow2")}");
    }

    [Fact]
    public async Task While_a_client_is_connected_no_one_else_can_write_and_afterwards_anyone_can()
    {
        using var pool = new PoolDirectory();
        await pool.CreateAsync("disk", "64M");
        using RunningDaemon daemon = await RunningDaemon.StartAsync(pool, "--set", "IdleTime=00:00:01");
        using (Process client = Tool.Start("qemu-io", "-f", "raw", "-c", "write -P 9 0 1M", "-c", "sleep 3000", daemon.Uri("vm/disk")))
        {
            await client.StandardOutput.ReadLineAsync(); // the write is done
            (int exitCode, string output) = await Tool.TryAsync("qemu-io", "-f", "qcow2", "-c", "write 0 512", pool.File("disk.qcow2"));
            Assert.Contains("Failed to get \"write\" lock", output, StringComparison.Ordinal);
            Assert.NotEqual(0, exitCode);
            await client.WaitForExitAsync();
            Assert.DoesNotContain("closed", daemon.LogText, StringComparison.Ordinal); // longer than IdleTime, but in use
        }
        await Eventually.TrueAsync(() => daemon.LogText.Contains("image vm/disk closed", StringComparison.Ordinal), "the idle image closed");
        await Tool.RunAsync("qemu-io", "-f", "qcow2", "-c", "read -P 9 0 1M", "-c", "write 0 512", pool.File("disk.qcow2"));
        await Tool.RunAsync("qemu-io", "-f", "raw", "-c", "read 0 512", daemon.Uri("vm/disk"));
        Assert.Equal(0, await daemon.StopAsync());
        await pool.CheckAllAsync();
    }

    [Fact]
    public async Task An_image_in_use_elsewhere_is_refused_and_the_client_learns_why()
    {
        using var pool = new PoolDirectory();
        await pool.CreateAsync("disk", "1M");
        using RunningDaemon daemon = await RunningDaemon.StartAsync(pool);
        await using (Qcow2.Io.LocalBlockFile.Open(pool.File("disk.qcow2"), Qcow2.Io.ImageAccess.Write))
        {
            (int exitCode, string output) = await Tool.TryAsync("qemu-io", "-f", "raw", "-c", "read 0 512", daemon.Uri("vm/disk"));
            Assert.NotEqual(0, exitCode);
            Assert.Contains("Failed to get \"write\" lock", output, StringComparison.Ordinal);
        }
        await Tool.RunAsync("qemu-io", "-f", "raw", "-c", "write 0 512", daemon.Uri("vm/disk"));
        Assert.Equal(0, await daemon.StopAsync());
        await pool.CheckAllAsync();
    }

    [Theory]
    [InlineData(RunningDaemon.Terminate)]
    [InlineData(RunningDaemon.Interrupt)]
    public async Task A_signal_with_requests_in_flight_ends_with_clean_images(int signal)
    {
        using var pool = new PoolDirectory();
        await pool.CreateAsync("disk", "256M");
        using RunningDaemon daemon = await RunningDaemon.StartAsync(pool);
        using Process fio = StartFio(daemon, "--rw=randwrite", "--bsrange=512-64k", "--iodepth=16", "--numjobs=2");
        await Eventually.TrueAsync(() => new FileInfo(pool.File("disk.qcow2")).Length > 8 << 20, "fio writes");
        Assert.Equal(0, await daemon.StopAsync(signal));
        Assert.Contains("odiskd[103]", daemon.LogText, StringComparison.Ordinal);
        await EndFioAsync(fio);
        Assert.False(File.Exists(pool.File("nbd.sock")));
        await pool.CheckAllAsync();
    }

    [Fact]
    public async Task After_a_crash_what_was_flushed_is_there_and_the_image_has_leaks_at_most()
    {
        using var pool = new PoolDirectory();
        await pool.CreateAsync("disk", "256M");
        for (int round = 1; round <= 3; round++)
        {
            using RunningDaemon daemon = await RunningDaemon.StartAsync(pool);
            string mark = $"write -P {round} {round}M 1M";
            await Tool.RunAsync("qemu-io", "-f", "raw", "-c", mark, "-c", "flush", daemon.Uri("vm/disk"));
            long before = new FileInfo(pool.File("disk.qcow2")).Length;
            using Process fio = StartFio(daemon, "--rw=randwrite", "--bs=4k", "--iodepth=16", "--offset=64M", "--fsync=64");
            await Eventually.TrueAsync(() => new FileInfo(pool.File("disk.qcow2")).Length > before + (4 << 20), "fio writes");
            await daemon.CrashAsync();
            await EndFioAsync(fio);
            await pool.CheckAllAsync(leaksAllowed: true);
        }
        using RunningDaemon again = await RunningDaemon.StartAsync(pool);
        for (int round = 1; round <= 3; round++)
            await Tool.RunAsync("qemu-io", "-f", "raw", "-c", $"read -P {round} {round}M 1M", again.Uri("vm/disk"));
        Assert.Equal(0, await again.StopAsync());
        await pool.CheckAllAsync(leaksAllowed: true);
    }

    [Fact]
    public async Task An_image_found_damaged_stops_and_says_so_and_harms_no_other()
    {
        using var pool = new PoolDirectory();
        await pool.CreateAsync("bad", "1M");
        await pool.CreateAsync("good", "1M");
        await Damage.MisalignSecondClusterAsync(pool.File("bad.qcow2"));
        using RunningDaemon daemon = await RunningDaemon.StartAsync(pool);
        (int exitCode, string output) = await Tool.TryAsync("qemu-io", "-f", "raw", "-c", "write -P 1 0 512", "-c", "read 64k 512", daemon.Uri("vm/bad"));
        Assert.NotEqual(0, exitCode);
        Assert.Contains("wrote 512/512", output, StringComparison.Ordinal);
        Assert.Contains("read failed: Input/output error", output, StringComparison.Ordinal);
        (exitCode, output) = await Tool.TryAsync("qemu-io", "-f", "raw", "-c", "write 0 512", daemon.Uri("vm/bad"));
        Assert.True(exitCode != 0, output);
        await Tool.RunAsync("qemu-io", "-f", "raw", "-c", "write 0 512", daemon.Uri("vm/good"));
        Assert.Equal(74, await daemon.StopAsync());
        Assert.Contains("image vm/bad closed with an error", daemon.LogText, StringComparison.Ordinal);
        File.Delete(pool.File("bad.qcow2"));
        await pool.CheckAllAsync();
    }

    [Theory]
    [InlineData("disk")]
    [InlineData("overlay")]
    public async Task Fio_verifies_random_writes_of_four_connections(string image)
    {
        using var pool = new PoolDirectory();
        await pool.CreateAsync("disk", "128M");
        if (image == "overlay")
        {
            await Tool.RunAsync("qemu-io", "-f", "qcow2", "-c", "write -P 0x5a 0 128M", pool.File("disk.qcow2"));
            await pool.CreateAsync("overlay", "128M", "-b", "disk.qcow2", "-F", "qcow2");
        }
        using RunningDaemon daemon = await RunningDaemon.StartAsync(pool);
        await Tool.RunAsync("fio", "--name=verify", "--ioengine=nbd", $"--uri={daemon.Uri($"vm/{image}")}", "--rw=randrw",
            "--bsrange=512-1M", "--size=32M", "--numjobs=4", "--offset_increment=32M", "--iodepth=16", "--verify=crc32c", "--thread");
        Assert.Equal(0, await daemon.StopAsync());
        await pool.CheckAllAsync();
    }

    [Fact]
    public async Task A_service_manager_is_told_when_it_is_ready_and_when_it_stops()
    {
        using var pool = new PoolDirectory();
        using var manager = new Socket(AddressFamily.Unix, SocketType.Dgram, ProtocolType.Unspecified);
        manager.Bind(new UnixDomainSocketEndPoint(pool.File("notify.sock")));
        using RunningDaemon daemon = await RunningDaemon.StartNotifyingAsync(pool, pool.File("notify.sock"));
        Assert.Equal("READY=1", await ReceiveAsync());
        daemon.Signal(RunningDaemon.Terminate);
        Assert.Equal("STOPPING=1", await ReceiveAsync());
        Assert.Equal(0, await daemon.EndAsync());

        async Task<string> ReceiveAsync()
        {
            byte[] datagram = new byte[100];
            using var limit = new CancellationTokenSource(TimeSpan.FromSeconds(60));
            return Encoding.UTF8.GetString(datagram, 0, await manager.ReceiveAsync(datagram, limit.Token));
        }
    }

    private static Process StartFio(RunningDaemon daemon, params string[] options) => Tool.Start("fio",
        ["--name=load", "--ioengine=nbd", $"--uri={daemon.Uri("vm/disk")}", "--size=128M", "--time_based", "--runtime=60", "--thread", .. options]);

    /// <summary>The load generator ends with the connection; how it takes that is its own affair.</summary>
    private static async Task EndFioAsync(Process fio)
    {
        Task reading = Task.WhenAll(fio.StandardOutput.ReadToEndAsync(), fio.StandardError.ReadToEndAsync());
        using var limit = new CancellationTokenSource(TimeSpan.FromSeconds(5));
        try
        {
            await fio.WaitForExitAsync(limit.Token);
        }
        catch (OperationCanceledException)
        {
            fio.Kill(entireProcessTree: true);
        }
        await reading;
    }
}
