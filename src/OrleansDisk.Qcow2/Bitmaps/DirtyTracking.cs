namespace OrleansDisk.Qcow2.Bitmaps;

/// <summary>
/// Sets the bits of what changes, in every bitmap that is enabled, before it changes: sessions with leases on their own
/// threads, turns in theirs. Which bitmaps these are changes only while nobody else is inside the gate.
/// </summary>
internal sealed class DirtyTracking
{
    private DirtyBitmap[]? _enabled;

    /// <summary>The bitmaps that are enabled. The caller is alone, or nobody uses the image yet.</summary>
    public void Follow(IEnumerable<DirtyBitmap> enabled)
    {
        DirtyBitmap[] bitmaps = [.. enabled];
        Volatile.Write(ref _enabled, bitmaps.Length == 0 ? null : bitmaps);
    }

    /// <summary>A range inside the disk is about to change.</summary>
    public void NoteChange(long offset, long bytes)
    {
        if (Volatile.Read(ref _enabled) is { } bitmaps)
            Set(bitmaps, offset, bytes);
    }

    private static void Set(DirtyBitmap[] bitmaps, long offset, long bytes)
    {
        foreach (DirtyBitmap bitmap in bitmaps)
            bitmap.Set(offset, bytes);
    }
}
