namespace OrleansDisk.Qcow2.Format;

/// <summary>The bitmap directory as a whole (qcow2 specification, "Bitmap directory").</summary>
internal static class BitmapDirectory
{
    /// <summary>Reads all entries, with everything that the specification demands of them.</summary>
    /// <param name="directory">The directory's bytes.</param>
    /// <param name="count">How many entries the header says there are.</param>
    /// <param name="geometry">The image's.</param>
    /// <param name="diskBytes">The disk's size.</param>
    /// <exception cref="Qcow2FormatException">An entry breaks the specification.</exception>
    public static IReadOnlyList<BitmapEntry> Parse(ReadOnlySpan<byte> directory, int count, ClusterGeometry geometry, long diskBytes)
    {
        var entries = new List<BitmapEntry>();
        var names = new HashSet<string>(StringComparer.Ordinal);
        while (!directory.IsEmpty)
        {
            if (directory.Length < BitmapEntry.FixedBytes)
                throw new Qcow2FormatException("Broken bitmap directory");
            if (entries.Count == count)
                throw new Qcow2FormatException("More bitmaps found than specified in header extension");
            var entry = BitmapEntry.Parse(directory);
            if (entry.StoredBytes > directory.Length)
                throw new Qcow2FormatException("Broken bitmap directory");
            if (!entry.IsWithinLimits(geometry, diskBytes) || entry.Name.Length == 0)
                throw new Qcow2FormatException($"Bitmap '{entry.Name}' doesn't satisfy the constraints");
            if (!names.Add(entry.Name))
                throw new Qcow2FormatException($"Two bitmaps are named '{entry.Name}'");
            entries.Add(entry);
            directory = directory[(int)entry.StoredBytes..];
        }
        return entries.Count == count ? entries
            : throw new Qcow2FormatException("Less bitmaps found than specified in header extension");
    }

    /// <summary>The bytes of a directory.</summary>
    public static byte[] Write(IReadOnlyList<BitmapEntry> entries)
    {
        byte[] directory = new byte[entries.Sum(entry => BitmapEntry.BytesOf(entry.NameBytes.Length, entry.ExtraData.Length))];
        int at = 0;
        foreach (BitmapEntry entry in entries)
            at += entry.WriteTo(directory.AsSpan(at));
        return directory;
    }
}
