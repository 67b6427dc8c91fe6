using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Data;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Cli.Opening;

/// <summary>A disk that can be written and forgets it all: an image without a name on top of the disk.</summary>
internal static class TemporaryOverlay
{
    /// <summary>Makes one; it owns what lies below it.</summary>
    public static async Task<Qcow2Image> CreateAsync(IDiskSource below)
    {
        string path = Path.Combine(Environment.GetEnvironmentVariable("TMPDIR") ?? "/var/tmp", Path.GetRandomFileName());
        try
        {
            await CreateOperation.CreateAsync(path, new CreateOptions { VirtualBytes = below.VirtualBytes });
            return await Qcow2Image.OpenAsync(path, new Qcow2OpenOptions { Access = ImageAccess.Write, Backing = below });
        }
        finally
        {
            File.Delete(path);
        }
    }
}
