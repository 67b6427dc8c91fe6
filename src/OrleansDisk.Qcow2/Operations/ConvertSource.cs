using OrleansDisk.Qcow2.Data;

namespace OrleansDisk.Qcow2.Operations;

/// <summary>A disk, or a part of one, that is copied.</summary>
/// <param name="Disk">The disk.</param>
/// <param name="Layers">Its chain (<see cref="MapOperation.LayersOf"/>).</param>
public sealed record ConvertSource(IDiskSource Disk, IReadOnlyList<MapLayer> Layers)
{
    /// <summary>The first byte that is copied.</summary>
    public long Start { get; init; }

    /// <summary>How many bytes are copied: to the end of the last whole sector by default.</summary>
    public long Bytes { get; init; } = Layers[0].VirtualBytes;

    /// <summary>
    /// How many layers are copied, from the top. What they leave to the ones below is left out: the target has its own
    /// backing file there, or is that layer.
    /// </summary>
    public int OwnLayerCount { get; init; } = Layers.Count;
}

/// <summary>Disks one behind the other, read as one.</summary>
internal sealed class ConvertSources
{
    private const long UncertainStepBytes = 1 << 20;

    private readonly List<(ConvertSource Source, long Start)> _parts = [];

    public ConvertSources(IEnumerable<ConvertSource> sources)
    {
        foreach (ConvertSource source in sources)
        {
            _parts.Add((source, Bytes));
            Bytes += source.Bytes;
        }
    }

    /// <summary>Length of all together.</summary>
    public long Bytes { get; private set; }

    /// <summary>The disk that alone is read, from its start, or null.</summary>
    public IDiskSource? Single => _parts is [({ Start: 0 } only, _)] ? only.Disk : null;

    /// <summary>Fills the buffer; what lies past the end of a disk reads as zeros.</summary>
    public async ValueTask ReadAsync(long offset, Memory<byte> buffer)
    {
        foreach ((ConvertSource source, long start) in _parts)
        {
            long inPart = offset - start;
            if (inPart >= source.Bytes || buffer.Length == 0)
                continue;
            int bytes = (int)Math.Min(buffer.Length, source.Bytes - inPart);
            await source.Disk.ReadAsync(source.Start + inPart, buffer[..bytes]);
            offset += bytes;
            buffer = buffer[bytes..];
        }
    }

    /// <summary>What the disks consist of, in order and without gaps.</summary>
    /// <param name="onUnknown">Told of a sector of which a disk can't say anything; null: that ends the walk.</param>
    public async IAsyncEnumerable<CopyRange> WalkAsync(Action<long, Exception>? onUnknown = null)
    {
        foreach ((ConvertSource source, long start) in _parts)
        {
            int own = source.OwnLayerCount;
            // Past the end of the layer below there are zeros, whatever the target has there.
            long belowBytes = own < source.Layers.Count ? source.Layers[own].VirtualBytes : 0;
            IReadOnlyList<MapLayer> layers = [.. source.Layers.Take(own)];
            await foreach (MapExtent extent in WalkAsync(layers, source.Start, source.Bytes, onUnknown))
            {
                long at = start + extent.Start - source.Start;
                bool isLeft = !extent.IsPresent && extent.Depth == own - 1;
                long left = isLeft ? Math.Clamp(belowBytes - extent.Start, 0, extent.Bytes) : 0;
                if (left > 0)
                    yield return new CopyRange(at, left, CopyKind.Backing);
                if (left < extent.Bytes)
                    yield return new CopyRange(at + left, extent.Bytes - left, extent.IsZero ? CopyKind.Zero : CopyKind.Data);
            }
        }
    }

    /// <summary>Who wants to be told of sectors that nothing is known of is told when it is their turn, and not of all of them before.</summary>
    private static async IAsyncEnumerable<MapExtent> WalkAsync(
        IReadOnlyList<MapLayer> layers, long start, long bytes, Action<long, Exception>? onUnknown)
    {
        long stepBytes = onUnknown is null ? bytes : UncertainStepBytes;
        for (long done = 0; done < bytes; done += stepBytes)
        {
            await foreach (MapExtent extent in MapOperation.WalkAsync(layers, start + done, Math.Min(stepBytes, bytes - done), onUnknown))
                yield return extent;
        }
    }
}

/// <summary>What is to be done with a range of the target.</summary>
internal enum CopyKind
{
    /// <summary>It is read and written.</summary>
    Data,

    /// <summary>It is to read as zeros.</summary>
    Zero,

    /// <summary>The target's backing file has it.</summary>
    Backing,
}

/// <summary>A range of the target, and what is to be done with it.</summary>
internal readonly record struct CopyRange(long Start, long Bytes, CopyKind Kind)
{
    public long End => Start + Bytes;
}
