using OrleansDisk.Nbd.Server;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Concurrency;
using OrleansDisk.Qcow2.Data;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Cli.Nbd;

/// <summary>An open image as an NBD export. Clients share the image, and so its turns.</summary>
/// <param name="name">The name that clients ask for.</param>
/// <param name="description">Free text for people.</param>
/// <param name="disk">What is read.</param>
/// <param name="image">The same disk when it can be written, else null.</param>
/// <param name="holeFile">The image's file when its data clusters may be holes (metadata preallocation), else null.</param>
/// <param name="turns">Where everything that concerns the image runs.</param>
/// <param name="canMultiConnect">Whether clients may open several connections; the server must have room for them.</param>
internal sealed class Qcow2Export(
    string name, string description, IDiskSource disk, Qcow2Image? image, IBlockFile? holeFile, ImageTurns turns,
    bool canMultiConnect)
    : INbdExport
{
    private readonly IReadOnlyList<MapLayer> _layers =
    [
        new MapLayer(disk, holeFile), .. disk.Backing is { } backing ? MapOperation.LayersOf(backing) : [],
    ];

    public string Name => name;

    public string Description => description;

    public ValueTask<INbdExportSession> ConnectAsync(CancellationToken cancellation)
    {
        // A raw file need not end with a sector; clients count in sectors.
        var info = new NbdExportInfo((disk.VirtualBytes + 511) & ~511L)
        {
            IsReadOnly = image is null,
            CanTrim = image is not null,
            CanWriteZeroes = image is not null,
            CanCache = true,
            CanMultiConnect = canMultiConnect,
        };
        return new ValueTask<INbdExportSession>(new Qcow2ExportSession(disk, image, _layers, turns, info));
    }
}
