using OrleansDisk.Qcow2.Format;

namespace OrleansDisk.Qcow2.Check;

/// <summary>The bitmaps of extended L2 entries agree with the rest of the entry. Other entries have none: nothing is found.</summary>
internal static class SubclusterCheck
{
    /// <summary>Examines an entry that is not of a compressed cluster.</summary>
    public static void Examine(L2Entry entry, ClusterGeometry geometry, CheckLog log)
    {
        ClusterKind kind = entry.Kind(geometry);
        if (!geometry.HasSubclusters || entry.Bitmap.IsValidFor(kind))
            return;
        if (kind == ClusterKind.Data)
            log.Corruption($"ERROR offset={entry.Host.Bytes:x}: Allocated cluster has corrupted subcluster allocation bitmap");
        else
            log.Corruption("ERROR: Unallocated cluster has non-zero subcluster allocation map");
    }

    /// <summary>Examines an entry of a compressed cluster.</summary>
    public static void ExamineCompressed(L2Entry entry, CheckLog log)
    {
        if (entry.Bitmap != default)
            log.Corruption($"ERROR compressed cluster with non-zero subcluster allocation bitmap, entry=0x{entry.Raw:x}");
    }
}
