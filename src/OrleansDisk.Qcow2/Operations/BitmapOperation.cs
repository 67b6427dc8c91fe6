namespace OrleansDisk.Qcow2.Operations;

/// <summary>What can be done to a bitmap.</summary>
public enum BitmapAction
{
    /// <summary>Makes it, without a bit set, and enabled.</summary>
    Add,

    /// <summary>Removes it, even if it is inconsistent.</summary>
    Remove,

    /// <summary>Clears all bits.</summary>
    Clear,

    /// <summary>Lets changes set bits.</summary>
    Enable,

    /// <summary>Keeps it as it is.</summary>
    Disable,

    /// <summary>Adds the bits of another bitmap.</summary>
    Merge,
}

/// <summary>One step of what qemu-img bitmap does to a bitmap.</summary>
/// <param name="Action">What is done.</param>
public sealed record BitmapOperation(BitmapAction Action)
{
    /// <summary>How many bytes of the disk one bit of an added bitmap stands for, or null for the usual.</summary>
    public long? GranularityBytes { get; init; }

    /// <summary>The bitmap whose bits are merged.</summary>
    public string SourceName { get; init; } = "";

    /// <summary>Does it.</summary>
    /// <param name="image">The image, open for writing.</param>
    /// <param name="name">The bitmap's name.</param>
    /// <param name="source">The image that has the bitmap to merge; null: the same.</param>
    /// <exception cref="Qcow2Exception">It can't be done; the message says why in QEMU's words.</exception>
    public Task RunAsync(Qcow2Image image, string name, Qcow2Image? source = null) => Action switch
    {
        BitmapAction.Add => image.AddBitmapAsync(name, GranularityBytes),
        BitmapAction.Remove => image.RemoveBitmapAsync(name),
        BitmapAction.Clear => image.ClearBitmapAsync(name),
        BitmapAction.Enable => image.EnableBitmapAsync(name),
        BitmapAction.Disable => image.DisableBitmapAsync(name),
        _ => image.MergeBitmapAsync(name, SourceName, source),
    };
}
