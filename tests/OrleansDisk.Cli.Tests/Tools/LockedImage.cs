using System.Diagnostics;

namespace OrleansDisk.Cli.Tests.Tools;

/// <summary>An image that qemu-io holds open for writing.</summary>
internal sealed class LockedImage : IDisposable
{
    private readonly Process _process;

    public LockedImage(string file)
    {
        var start = new ProcessStartInfo("qemu-io", ["-f", "qcow2", file])
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
        };
        _process = Process.Start(start) ?? throw new InvalidOperationException("qemu-io is in the Debian package qemu-utils");
        // Its answer shows that the image is open.
        _process.StandardInput.WriteLine("length");
        _process.StandardInput.Flush();
        Assert.Contains("MiB", _process.StandardOutput.ReadLine(), StringComparison.Ordinal);
    }

    public void Dispose()
    {
        _process.StandardInput.Close();
        _process.WaitForExit();
        _process.Dispose();
    }
}
