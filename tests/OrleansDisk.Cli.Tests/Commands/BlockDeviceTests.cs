using OrleansDisk.Cli.Tests.Tools;

namespace OrleansDisk.Cli.Tests.Commands;

/// <summary>Block devices in place of files: their length is what it is, and nothing of what they held shows.</summary>
public sealed class BlockDeviceTests : IDisposable
{
    private readonly TemporaryDirectory _directory = new();

    public void Dispose() => _directory.Dispose();

    [LoopDeviceFact]
    public void A_disk_is_copied_to_a_device_and_back()
    {
        using var device = new LoopDevice(_directory.File("device"));
        Qemu("create -q -f qcow2 disk 64M");
        ExternalTool.QemuIo(_directory.File("disk"), "write -P 1 1M 3M", "write -P 2 40M 100k", "write -z 2M 64k").Succeeded();
        foreach (string arguments in (ReadOnlySpan<string>)["convert -n -O raw disk DEVICE", "convert -O raw disk DEVICE", "dd -O raw if=disk of=DEVICE"])
        {
            File.Copy(_directory.File("device"), _directory.File("old"), overwrite: true);
            Ours(arguments.Replace("DEVICE", device.Path, StringComparison.Ordinal)).Succeeded();
            Qemu($"compare -f qcow2 -F raw disk {device.Path}");
            Ours($"convert -f raw -O qcow2 {device.Path} back").Succeeded();
            Qemu("compare disk back");
            ExternalTool.Run("cp", "coreutils", _directory.Directory, ["old", device.Path]).Succeeded();
        }
    }

    [LoopDeviceFact]
    public void An_image_on_a_device_shows_nothing_of_what_was_there_and_ends_where_the_device_does()
    {
        using var device = new LoopDevice(_directory.File("device"));
        Ours($"create -f qcow2 {device.Path} 1G").Succeeded();
        Ours("io -c", "write -P 3 100M 1000", "read -P 3 100M 1000", "read -P 0 104858600 60000", "write -P 4 200M 30M", "discard 210M 10M", "write -P 5 300M 20M")
            .Succeeded();
        ToolResult full = Ours("io -c", "write -P 6 400M 40M");
        Assert.Contains("No space left on device", full.Output + full.Errors, StringComparison.Ordinal);
        Qemu($"check -q {device.Path}");
        Ours($"check -q {device.Path}").Succeeded();
        ToolResult read = ExternalTool.QemuIo(device.Path, "read -P 3 100M 1000", "read -P 0 104858600 60000", "read -P 4 200M 10M", "read -P 5 300M 20M").Succeeded();
        Assert.DoesNotContain("failed", read.Output, StringComparison.Ordinal);

        ToolResult Ours(string command, params string[] shell) => Odisk.Run(_directory.Directory,
            shell.Length == 0 ? command.Split(' ') : ["io", .. shell.SelectMany(line => (string[])["-c", line]), device.Path]);
    }

    [LoopDeviceFact]
    public void What_a_device_can_not_be_is_refused_in_qemu_imgs_words()
    {
        using var device = new LoopDevice(_directory.File("device"));
        Qemu("create -q -f raw large 100M");
        foreach (string arguments in (ReadOnlySpan<string>)["create -f raw DEVICE 100M", "resize -f raw DEVICE 100M", "resize -f raw --shrink DEVICE 1M",
            "convert -f raw -O raw large DEVICE", "convert -n -f raw -O raw large DEVICE", "create -f raw -o preallocation=full DEVICE 1M", "info -f raw DEVICE",
            "map -f raw DEVICE"])
        {
            Odisk.AssertSameAsQemuImg(_directory.Directory, arguments.Replace("DEVICE", device.Path, StringComparison.Ordinal).Split(' '));
        }
        Assert.Contains("unsupported for this non-regular file", Ours($"create -f qcow2 -o preallocation=metadata {device.Path} 1M").Errors, StringComparison.Ordinal);
    }

    private ToolResult Ours(string arguments) => Odisk.Run(_directory.Directory, arguments.Split(' '));

    private void Qemu(string arguments) => ExternalTool.QemuImg(_directory.Directory, arguments.Split(' ')).Succeeded();
}
