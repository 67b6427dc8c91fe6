using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Metadata;

namespace OrleansDisk.Qcow2.Data;

/// <summary>A range of the disk that one L2 slice maps in one way.</summary>
/// <param name="Kind">The way.</param>
/// <param name="Start">Its first byte, anywhere in a cluster.</param>
/// <param name="Bytes">Length, at least 1; it ends with its cluster at the latest if that is compressed.</param>
/// <param name="Entry">The entry of the cluster of its first byte.</param>
internal readonly record struct ClusterRun(ClusterKind Kind, GuestOffset Start, long Bytes, L2Entry Entry)
{
    /// <summary>Whether a write may go straight to the host clusters.</summary>
    public bool IsWritableInPlace => Kind == ClusterKind.Data && Entry.IsCopied;

    /// <summary>
    /// The run that starts at an offset, at most <paramref name="maxBytes"/> long: where there are host clusters, they
    /// also follow each other in the file and agree in their copied flag.
    /// </summary>
    /// <exception cref="MetadataDamagedException">An entry breaks the specification.</exception>
    public static ClusterRun Find(CachedTable table, GuestOffset start, long maxBytes, Header header)
    {
        ClusterGeometry geometry = header.Geometry;
        GuestCluster first = geometry.ClusterOf(start);
        int index = geometry.L2SliceIndex(first);
        long clusterCount = geometry.ClusterOf(start + (maxBytes - 1)).Index - first.Index + 1;
        int limit = (int)Math.Min(clusterCount, geometry.L2SliceEntryCount - index);
        L2Entry entry = table.ReadL2Entry(index, geometry);
        if (geometry.HasSubclusters)
            return FindSubclusters(table, start, maxBytes, limit, header);
        ClusterKind kind = entry.Kind(geometry);
        Validate(entry, kind, first, header);
        int count = 1;
        if (kind != ClusterKind.Compressed)
        {
            ulong step = kind is ClusterKind.Data or ClusterKind.ZeroAllocated ? (ulong)geometry.ClusterBytes : 0;
            while (count < limit && table.ReadL2Entry(index + count, geometry).Raw == entry.Raw + (step * (ulong)count))
                count++;
        }
        long bytes = ((long)count << geometry.ClusterBits) - geometry.OffsetInCluster(start);
        return new ClusterRun(kind, start, Math.Min(bytes, maxBytes), entry);
    }

    /// <summary>The part of a run that lies in its first cluster, given that cluster's entry.</summary>
    public static ClusterRun InCluster(L2Entry entry, GuestOffset start, long maxBytes, ClusterGeometry geometry)
    {
        int subcluster = geometry.SubclusterOf(start);
        ClusterKind kind = entry.KindAt(subcluster, geometry);
        int count = !geometry.HasSubclusters ? 1
            : kind == ClusterKind.Compressed ? SubclusterBitmap.Count - subcluster : entry.Bitmap.CountAlike(subcluster);
        long bytes = ((long)(subcluster + count) << geometry.SubclusterBits) - geometry.OffsetInCluster(start);
        return new ClusterRun(kind, start, Math.Min(bytes, maxBytes), entry);
    }

    /// <summary>The entry of one cluster.</summary>
    /// <exception cref="MetadataDamagedException">It breaks the specification: who freed it could free another's cluster.</exception>
    public static L2Entry ReadEntry(CachedTable table, GuestCluster cluster, Header header)
    {
        L2Entry entry = table.ReadL2Entry(header.Geometry.L2SliceIndex(cluster), header.Geometry);
        Validate(entry, entry.KindAt(0, header.Geometry), cluster, header);
        return entry;
    }

    private static ClusterRun FindSubclusters(
        CachedTable table, GuestOffset start, long maxBytes, int clusterLimit, Header header)
    {
        ClusterGeometry geometry = header.Geometry;
        GuestCluster first = geometry.ClusterOf(start);
        L2Entry entry = ReadEntry(table, first, header);
        ClusterRun run = InCluster(entry, start, maxBytes, geometry);
        ulong step = entry.HasHost(geometry) ? (ulong)geometry.ClusterBytes : 0;
        for (int i = 1; i < clusterLimit && run.Kind != ClusterKind.Compressed; i++)
        {
            GuestOffset nextStart = geometry.OffsetOf(first + i);
            if (run.Start + run.Bytes != nextStart)
                break;
            L2Entry next = table.ReadL2Entry(geometry.L2SliceIndex(first + i), geometry);
            if (next.Raw != entry.Raw + (step * (ulong)i) || next.KindAt(0, geometry) != run.Kind)
                break;
            run = run with { Bytes = run.Bytes + InCluster(next, nextStart, maxBytes - run.Bytes, geometry).Bytes };
        }
        return run;
    }

    private static void Validate(L2Entry entry, ClusterKind kind, GuestCluster cluster, Header header)
    {
        ClusterGeometry geometry = header.Geometry;
        if (kind is ClusterKind.ZeroPlain or ClusterKind.ZeroAllocated && header.Version < 3)
            throw new MetadataDamagedException($"Zero cluster entry found in pre-v3 image (L2 index: 0x{geometry.L2Index(cluster):x})");
        if (kind == ClusterKind.Invalid)
            throw new MetadataDamagedException($"Invalid cluster entry found (L2 index: 0x{geometry.L2Index(cluster):x})");
        if (geometry.HasExternalData)
            ValidateExternal(entry, kind, cluster, geometry);
        if (kind == ClusterKind.Compressed || geometry.IsAligned(entry.Host.Bytes))
            return;
        string what = kind == ClusterKind.ZeroAllocated ? "Preallocated zero cluster" : "Cluster allocation";
        throw new MetadataDamagedException(
            $"{what} offset {entry.Host} unaligned (guest offset: {geometry.OffsetOf(cluster)}, L2 index: 0x{geometry.L2Index(cluster):x})");
    }

    /// <summary>In an external data file every cluster has its place, and none is compressed.</summary>
    private static void ValidateExternal(L2Entry entry, ClusterKind kind, GuestCluster cluster, ClusterGeometry geometry)
    {
        if (kind == ClusterKind.Compressed)
        {
            throw new MetadataDamagedException(
                $"Compressed cluster entry found in image with external data file (L2 index: 0x{geometry.L2Index(cluster):x})");
        }
        if (entry.HasHost(geometry) && entry.Host.Bytes != geometry.OffsetOf(cluster).Bytes)
        {
            throw new MetadataDamagedException($"External data file host cluster offset {entry.Host} does not match guest cluster "
                + $"offset: {geometry.OffsetOf(cluster)}, L2 index: 0x{geometry.L2Index(cluster):x})");
        }
    }
}
