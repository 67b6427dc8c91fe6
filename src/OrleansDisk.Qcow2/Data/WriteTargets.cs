using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Metadata;

namespace OrleansDisk.Qcow2.Data;

/// <summary>
/// Checks that guest data may be written where an L2 entry leads: a damaged one could lead out of the file, or onto
/// metadata (docs/consistency.md, W8). What was found out is kept with the table, for turns and for leases.
/// </summary>
internal sealed class WriteTargets(ImageMetadata metadata)
{
    /// <summary>Entries that are looked at together: a word of <see cref="CachedTable.SetWritable"/>.</summary>
    private const int WordEntryCount = 64;

    private readonly ClusterGeometry _geometry = metadata.Geometry;

    /// <summary>Checks the clusters of a run that may be written in place.</summary>
    /// <exception cref="MetadataDamagedException">One of them must not be written.</exception>
    public void Check(CachedTable table, ClusterRun run)
    {
        long generation = metadata.Map.Generation;
        GuestCluster first = _geometry.ClusterOf(run.Start);
        long count = _geometry.ClusterOf(run.Start + (run.Bytes - 1)).Index - first.Index + 1;
        int index = _geometry.L2SliceIndex(first);
        for (int i = 0; i < count; i++)
        {
            if (table.IsWritable(index + i, generation))
                continue;
            Check(_geometry.ClusterOf(run.Entry.Host + ((long)i << _geometry.ClusterBits)));
            NoteAround(table, first + i, generation);
        }
    }

    /// <summary>Checks one host cluster.</summary>
    /// <exception cref="MetadataDamagedException">It must not be written.</exception>
    public void Check(HostCluster cluster)
    {
        if (_geometry.HasExternalData)
            return; // the place of a guest cluster there is its own, as its entry was found to say
        if (!IsInFile(cluster))
            throw new MetadataDamagedException($"Preventing invalid write past the end of the file (at {_geometry.OffsetOf(cluster)})");
        if (metadata.Map.FindProtected(cluster) is { } name)
            throw new MetadataDamagedException($"Preventing invalid write on metadata (overlaps with {name})");
    }

    /// <summary>Looks at the neighbours of an entry, too: who writes here will often write there next.</summary>
    private void NoteAround(CachedTable table, GuestCluster guest, long generation)
    {
        int index = _geometry.L2SliceIndex(guest);
        int start = index & ~(WordEntryCount - 1);
        int end = Math.Min(start + WordEntryCount, _geometry.L2SliceEntryCount);
        ulong mask = 0;
        for (int i = start; i < end; i++)
        {
            L2Entry entry = table.ReadL2Entry(i, _geometry);
            if (entry.Kind(_geometry) != ClusterKind.Data || !entry.IsCopied || !_geometry.IsAligned(entry.Host.Bytes))
                continue;
            if (MayBeWritten(_geometry.ClusterOf(entry.Host), guest + (i - index)))
                mask |= 1UL << (i - start);
        }
        table.SetWritable(index, mask, generation);
    }

    private bool MayBeWritten(HostCluster host, GuestCluster guest) => _geometry.HasExternalData
        ? host.Index == guest.Index : IsInFile(host) && metadata.Map.FindProtected(host) is null;

    private bool IsInFile(HostCluster cluster) => cluster.Index < _geometry.ClusterCount(metadata.File.LengthBytes);
}
