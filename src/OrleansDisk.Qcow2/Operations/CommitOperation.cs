using OrleansDisk.Qcow2.Data;

namespace OrleansDisk.Qcow2.Operations;

/// <summary>
/// Writes what the upper layers of a chain hold into the layer below them, which then reads as the whole chain did. The
/// upper layers stay as they are, so a crash in between changes nothing of what the chain reads as; when the layer below has
/// been flushed, they may give their data up (<see cref="Qcow2Image.MakeEmptyAsync"/>).
/// </summary>
public static class CommitOperation
{
    /// <summary>Commits; the layer below is flushed at the end.</summary>
    /// <param name="layers">The chain, from the top (<see cref="MapOperation.LayersOf"/>).</param>
    /// <param name="depth">Which of them takes the data: 1 is the top's backing file. It is open for writing, and grows to the top's size.</param>
    /// <param name="options">Progress, rate, parallelism; what concerns the target is set here.</param>
    /// <exception cref="CopyException">A disk can't be read or written.</exception>
    public static async Task RunAsync(IReadOnlyList<MapLayer> layers, int depth, ConvertOptions options)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(depth, 1);
        IDiskSource top = layers[0].Source;
        if (layers[depth].Source is not IWritableDisk { IsReadOnly: false } target)
            throw new Qcow2Exception($"'{layers[depth].Source.FileName}' is open read-only");
        if (target.VirtualBytes < top.VirtualBytes)
            await target.ResizeAsync(top.VirtualBytes);
        var source = new ConvertSource(top, layers) { OwnLayerCount = depth };
        // Zeros of the upper layers have to hide what the target holds, wherever that is.
        await ConvertOperation.RunAsync([source], target, options with { TargetIsZero = false, TargetBackingBytes = long.MaxValue });
    }
}
