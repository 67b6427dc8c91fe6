using OrleansDisk.Qcow2.Data;

namespace OrleansDisk.Qcow2.Operations;

/// <summary>Reads a range and tells which parts of it hold no data, for clients that can be told so.</summary>
public static class SparseRead
{
    /// <summary>Reads shorter than this are not looked through for holes: it would cost more than it saves.</summary>
    public const int MinBytes = 64 << 10;

    /// <summary>Fills the buffer but for what reads as zeros, and reports every part of the range in order.</summary>
    /// <param name="disk">What is read.</param>
    /// <param name="layers">The disk's chain (<see cref="MapOperation.LayersOf"/>).</param>
    /// <param name="offset">First byte; the range lies inside the disk.</param>
    /// <param name="target">Where the data goes; left as it is under parts that read as zeros.</param>
    /// <param name="report">Told of each part when it is done.</param>
    public static async ValueTask RunAsync(
        IDiskSource disk, IReadOnlyList<MapLayer> layers, long offset, Memory<byte> target, Action<MapExtent> report)
    {
        await foreach (MapExtent extent in MapOperation.WalkAsync(layers, offset, target.Length))
        {
            int bytes = (int)extent.Bytes;
            if (!extent.IsZero)
                await disk.ReadAsync(extent.Start, target[..bytes]);
            report(extent);
            target = target[bytes..];
        }
    }
}
