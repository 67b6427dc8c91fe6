
namespace OrleansDisk.Cli.Tests.Tools;

/// <summary>A block device that is a file, full of bytes that nobody wants to see again.</summary>
internal sealed class LoopDevice : IDisposable
{
    public const int Bytes = 64 << 20;

    /// <param name="file">Where its bytes are.</param>
    public LoopDevice(string file)
    {
        byte[] old = new byte[Bytes];
        new Random(1).NextBytes(old);
        File.WriteAllBytes(file, old);
        Path = ExternalTool.Run("losetup", "mount", "/", ["-f", "--show", file]).Succeeded().Output.Trim();
    }

    /// <summary>Why there can't be one here, or null.</summary>
    public static string? Hindrance => Environment.UserName != "root" ? "needs root"
        : !File.Exists("/dev/loop-control") ? "needs loop devices"
        : ExternalTool.Run("losetup", "mount", "/", ["-f"]).ExitCode != 0 ? "needs a free loop device" : null;

    public string Path { get; }

    public void Dispose() => ExternalTool.Run("losetup", "mount", "/", ["-d", Path]).Succeeded();
}

/// <summary>A test that is left out where there can be no block device.</summary>
internal sealed class LoopDeviceFactAttribute : FactAttribute
{
    public LoopDeviceFactAttribute() => Skip = LoopDevice.Hindrance;
}
