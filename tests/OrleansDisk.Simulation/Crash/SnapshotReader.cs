using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Simulation.Crash;

/// <summary>Reads the internal snapshots of an image file.</summary>
internal static class SnapshotReader
{
    /// <summary>All bytes of each snapshot's disk, by its name.</summary>
    /// <param name="open">Opens the image file for reading.</param>
    /// <param name="options">How the image is opened, but for the snapshot.</param>
    public static async Task<IReadOnlyDictionary<string, byte[]>> ReadAsync(Func<IBlockFile> open, Qcow2OpenOptions options)
    {
        var found = new Dictionary<string, byte[]>();
        await using IBlockFile file = open();
        Header header = await HeaderReader.ReadAsync(file);
        foreach (SnapshotEntry snapshot in await DirectoryReader.ReadSnapshotsAsync(file, header))
        {
            await using Qcow2Image view = await Qcow2Image.OpenAsync(open(),
                options with { Access = ImageAccess.Read, Snapshot = new SnapshotSelector { Id = snapshot.Id } });
            byte[] disk = new byte[view.VirtualBytes];
            await view.ReadAsync(0, disk);
            found.Add(snapshot.Name, disk);
        }
        return found;
    }
}
