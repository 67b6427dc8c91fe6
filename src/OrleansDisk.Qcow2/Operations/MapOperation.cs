using OrleansDisk.Qcow2.Data;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Qcow2.Operations;

/// <summary>A range of a disk, and which layer of its chain says what of it.</summary>
/// <param name="Start">First byte.</param>
/// <param name="Bytes">Length; neighbours that say the same are one range.</param>
/// <param name="Depth">The layer that decides: 0 is the image itself, 1 its backing file, and so on.</param>
public readonly record struct MapExtent(long Start, long Bytes, int Depth)
{
    /// <summary>Whether the layer has allocated it, if only as zeros.</summary>
    public bool IsPresent { get; init; }

    /// <summary>Whether it reads as zeros.</summary>
    public bool IsZero { get; init; }

    /// <summary>Whether the layer's file holds its bytes.</summary>
    public bool IsData { get; init; }

    /// <summary>Whether the layer's file has space for it, with data or with zeros.</summary>
    public bool IsAllocated { get; init; }

    /// <summary>Position in the layer's file, or null when there is none that could be read directly.</summary>
    public long? HostOffset { get; init; }

    /// <summary>The layer's file.</summary>
    public string FileName { get; init; } = "";

    internal bool Continues(MapExtent before) => before.Start + before.Bytes == Start
        && (before.Depth, before.IsPresent, before.IsZero, before.IsData) == (Depth, IsPresent, IsZero, IsData)
        && (HostOffset is null) == (before.HostOffset is null)
        && (HostOffset is null || (HostOffset == before.HostOffset + before.Bytes && FileName == before.FileName));
}

/// <summary>A layer of a chain as <see cref="MapOperation"/> walks it.</summary>
/// <param name="Source">The layer.</param>
/// <param name="HoleFile">
/// The layer's file when data clusters may be holes in it and are to be shown as zeros (metadata preallocation), else null.
/// </param>
public readonly record struct MapLayer(IDiskSource Source, IBlockFile? HoleFile = null)
{
    /// <summary>Size of the layer in whole sectors: a raw file is padded with zeros.</summary>
    internal long VirtualBytes => (Source.VirtualBytes + 511) & ~511L;
}

/// <summary>Tells where the bytes of a disk come from.</summary>
public static class MapOperation
{
    private const long SectorBytes = 512;

    /// <summary>The layers from an open disk to the bottom of its chain.</summary>
    public static IReadOnlyList<MapLayer> LayersOf(IDiskSource top)
    {
        var layers = new List<MapLayer>();
        for (IDiskSource? source = top; source is not null; source = source.Backing)
            layers.Add(new MapLayer(source));
        return layers;
    }

    /// <summary>Walks a range of a disk from its start to its end; the extents cover it without gaps.</summary>
    /// <param name="layers">The chain, from the top; at least one layer.</param>
    /// <param name="start">First byte.</param>
    /// <param name="bytes">Length; what lies past the end of the disk is left out.</param>
    /// <param name="onUnknown">
    /// Told of a sector of which no layer can say anything, which then counts as data of the first one; null: that ends the walk.
    /// </param>
    public static async IAsyncEnumerable<MapExtent> WalkAsync(
        IReadOnlyList<MapLayer> layers, long start, long bytes, Action<long, Exception>? onUnknown = null)
    {
        long diskBytes = layers[0].VirtualBytes;
        long end = start < diskBytes ? start + Math.Min(bytes, diskBytes - start) : start;
        MapExtent? pending = null;
        for (long at = start; at < end;)
        {
            MapExtent next = onUnknown is null ? await FindAsync(layers, at, end - at) : await FindWhatIsKnownAsync(layers, at, end - at, onUnknown);
            at += next.Bytes;
            if (pending is { } before && next.Continues(before))
            {
                pending = before with { Bytes = before.Bytes + next.Bytes };
                continue;
            }
            if (pending is not null)
                yield return pending.Value;
            pending = next;
        }
        if (pending is not null)
            yield return pending.Value;
    }

    /// <summary>Asks for ever less, down to a sector.</summary>
    private static async ValueTask<MapExtent> FindWhatIsKnownAsync(
        IReadOnlyList<MapLayer> layers, long start, long bytes, Action<long, Exception> onUnknown)
    {
        while (true)
        {
            try
            {
                return await FindAsync(layers, start, bytes);
            }
            catch (IOException e) when (bytes <= SectorBytes)
            {
                onUnknown(start, e);
                return new MapExtent(start, bytes, 0) { IsPresent = true, IsData = true, FileName = layers[0].Source.FileName };
            }
            catch (IOException)
            {
                bytes = Math.Max(SectorBytes, (bytes / 4) & -SectorBytes);
            }
        }
    }

    private static async ValueTask<MapExtent> FindAsync(IReadOnlyList<MapLayer> layers, long start, long bytes)
    {
        for (int depth = 0; ; depth++)
        {
            MapLayer layer = layers[depth];
            DiskExtent extent = await GetExtentAsync(layer, start, bytes);
            bytes = Math.Min(bytes, extent.Bytes);
            if (extent.State != DiskExtentState.Unallocated)
                return Describe(layer, extent, start, bytes, depth);
            // A layer that ends here decides nothing; the one above reads as zeros.
            bool isBottom = depth + 1 == layers.Count || start >= layers[depth + 1].VirtualBytes;
            if (isBottom)
            {
                // Space that subclusters have in the file is theirs even before they have data.
                return new MapExtent(start, bytes, depth)
                {
                    IsZero = true,
                    HostOffset = extent.HostOffset,
                    FileName = layer.Source.DataFileName,
                };
            }
            bytes = Math.Min(bytes, layers[depth + 1].VirtualBytes - start);
        }
    }

    private static async ValueTask<DiskExtent> GetExtentAsync(MapLayer layer, long start, long bytes)
    {
        long inside = Math.Min(bytes, layer.Source.VirtualBytes - start);
        return inside > 0 ? await layer.Source.GetExtentAsync(start, inside)
            : new DiskExtent(bytes, DiskExtentState.Zero, start); // the padding of a raw file
    }

    private static MapExtent Describe(MapLayer layer, DiskExtent extent, long start, long bytes, int depth)
    {
        if (extent.State == DiskExtentState.Unknown)
            return new MapExtent(start, bytes, depth) { FileName = layer.Source.DataFileName };
        bool isData = extent.State is DiskExtentState.Data or DiskExtentState.DataOfZeros;
        bool isHole = false;
        if (isData && layer.HoleFile is not null && extent.HostOffset is { } host)
        {
            FileExtent inFile = layer.HoleFile.GetExtent(host, host + bytes);
            bytes = inFile.Bytes;
            isHole = !inFile.IsData;
        }
        return new MapExtent(start, bytes, depth)
        {
            IsPresent = true,
            IsZero = extent.State != DiskExtentState.Data || isHole,
            IsData = isData,
            IsAllocated = extent.State != DiskExtentState.Zero,
            HostOffset = extent.HostOffset,
            FileName = layer.Source.DataFileName,
        };
    }
}
