using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Metadata;

namespace OrleansDisk.Qcow2.Data;

/// <summary>Neighbouring guest clusters that one L2 slice maps in one way.</summary>
/// <param name="Kind">The way.</param>
/// <param name="First">The first guest cluster.</param>
/// <param name="Count">How many, at least 1; always 1 for compressed clusters.</param>
/// <param name="Entry">The first cluster's entry.</param>
internal readonly record struct ClusterRun(ClusterKind Kind, GuestCluster First, int Count, L2Entry Entry)
{
    /// <summary>Whether a write may go straight to the host clusters.</summary>
    public bool IsWritableInPlace => Kind == ClusterKind.Data && Entry.IsCopied;

    /// <summary>
    /// The run that starts at a cluster, at most <paramref name="maxCount"/> long: data and allocated zero clusters also
    /// follow each other in the file and agree in their copied flag.
    /// </summary>
    /// <exception cref="MetadataDamagedException">An entry breaks the specification.</exception>
    public static ClusterRun Find(CachedTable table, GuestCluster first, int maxCount, Header header)
    {
        ClusterGeometry geometry = header.Geometry;
        int index = geometry.L2SliceIndex(first);
        int limit = Math.Min(maxCount, geometry.L2SliceEntryCount - index);
        L2Entry entry = table.ReadL2Entry(index, geometry);
        ClusterKind kind = entry.Kind(geometry);
        Validate(entry, kind, first, header);
        if (kind == ClusterKind.Compressed)
            return new ClusterRun(kind, first, 1, entry);
        int count = 1;
        bool isMapped = kind is ClusterKind.Data or ClusterKind.ZeroAllocated;
        ulong step = isMapped ? (ulong)geometry.ClusterBytes : 0;
        while (count < limit && table.ReadL2Entry(index + count, geometry).Raw == entry.Raw + (step * (ulong)count))
            count++;
        return new ClusterRun(kind, first, count, entry);
    }

    /// <summary>The entry of one cluster.</summary>
    /// <exception cref="MetadataDamagedException">It breaks the specification: who freed it could free another's cluster.</exception>
    public static L2Entry ReadEntry(CachedTable table, GuestCluster cluster, Header header)
    {
        L2Entry entry = table.ReadL2Entry(header.Geometry.L2SliceIndex(cluster), header.Geometry);
        Validate(entry, entry.Kind(header.Geometry), cluster, header);
        return entry;
    }

    private static void Validate(L2Entry entry, ClusterKind kind, GuestCluster cluster, Header header)
    {
        ClusterGeometry geometry = header.Geometry;
        if (kind is ClusterKind.ZeroPlain or ClusterKind.ZeroAllocated && header.Version < 3)
            throw new MetadataDamagedException($"Zero cluster entry found in pre-v3 image (L2 index: 0x{geometry.L2Index(cluster):x})");
        if (kind is ClusterKind.Data or ClusterKind.ZeroAllocated && !geometry.IsAligned(entry.Host.Bytes))
        {
            string what = kind == ClusterKind.Data ? "Cluster allocation" : "Preallocated zero cluster";
            throw new MetadataDamagedException(
                $"{what} offset {entry.Host} unaligned (guest offset: {geometry.OffsetOf(cluster)}, L2 index: 0x{geometry.L2Index(cluster):x})");
        }
    }
}
