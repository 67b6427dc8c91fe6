using System.Numerics;
using OrleansDisk.Qcow2.Format;

namespace OrleansDisk.Qcow2.Metadata;

/// <summary>What the caches of an image may take, by its options and its size; as QEMU works it out.</summary>
/// <param name="L2Bytes">For L2 slices.</param>
/// <param name="L2EntryBytes">For one slice.</param>
/// <param name="RefcountBytes">For refcount blocks.</param>
internal readonly record struct CacheSizes(long L2Bytes, int L2EntryBytes, long RefcountBytes)
{
    private const long DefaultL2Bytes = 32L << 20;
    private const long DefaultRefcountBytes = 8L << 20;

    /// <summary>Refcount blocks that are kept at least where both caches share a limit.</summary>
    private const int MinRefcountBlocks = 4;

    /// <exception cref="Qcow2Exception">The options contradict each other, or ask for what no cache can be.</exception>
    public static CacheSizes Of(Qcow2OpenOptions options, Header header)
    {
        ClusterGeometry geometry = header.Geometry;
        long entryBytes = options.L2CacheEntryBytes ?? Math.Min(geometry.ClusterBytes, ClusterGeometry.MaxL2SliceBytes);
        if (entryBytes < 1 << ClusterGeometry.MinClusterBits || entryBytes > geometry.ClusterBytes || !BitOperations.IsPow2(entryBytes))
        {
            throw new Qcow2Exception(
                $"L2 cache entry size must be a power of two between 512 and the cluster size ({geometry.ClusterBytes})");
        }
        (long l2, long refcount) = options.CacheBytes is { } both
            ? Split(both, options, geometry, header.DiskBytes)
            : (options.L2CacheBytes ?? DefaultL2Bytes, options.RefcountCacheBytes ?? DefaultRefcountBytes);
        // A cache is never larger than what it is for, so what counts is how many tables the disk could have.
        if (Math.Min(l2, AllL2Bytes(geometry, header.DiskBytes)) / entryBytes > int.MaxValue)
            throw new Qcow2Exception("L2 cache size too big");
        if (refcount / geometry.ClusterBytes > int.MaxValue)
            throw new Qcow2Exception("Refcount cache size too big");
        return new CacheSizes(l2, (int)entryBytes, refcount);
    }

    private static (long L2, long Refcount) Split(long both, Qcow2OpenOptions options, ClusterGeometry geometry, long diskBytes)
    {
        (long? l2, long? refcount) = (options.L2CacheBytes, options.RefcountCacheBytes);
        if (l2 is not null && refcount is not null)
            throw new Qcow2Exception("cache-size, l2-cache-size and refcount-cache-size may not be set at the same time");
        if (l2 > both)
            throw new Qcow2Exception("l2-cache-size may not exceed cache-size");
        if (refcount > both)
            throw new Qcow2Exception("refcount-cache-size may not exceed cache-size");
        long all = AllL2Bytes(geometry, diskBytes);
        if (l2 is { } given)
            return (given, both - Math.Min(all, given));
        if (refcount is { } blocks)
            return (both - blocks, blocks);
        long least = (long)MinRefcountBlocks << geometry.ClusterBits;
        if (both >= all + least)
            return (all, both - all);
        least = Math.Min(both, least);
        return (both - least, least);
    }

    /// <summary>What all L2 tables of the disk take together.</summary>
    private static long AllL2Bytes(ClusterGeometry geometry, long diskBytes) =>
        geometry.RoundUp(geometry.ClusterCount(diskBytes) * geometry.L2EntryBytes);
}
