using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Qcow2.Metadata;

/// <summary>What an image that became smaller gives back: refcount blocks that count nothing, and the end of the file.</summary>
internal sealed class FileTail(
    IBlockFile file, ClusterGeometry geometry, PointerTable table, TableCache blocks, MetadataMap map, FreedClusters freed)
{
    /// <summary>
    /// Takes blocks that count nothing, or themselves alone, out of the refcount table. Their clusters must not be used
    /// before the table is on stable storage: the caller has the gate alone, and writes back next.
    /// </summary>
    public async ValueTask DropUnusedBlocksAsync()
    {
        for (int index = 0; index < table.Count; index++)
        {
            var entry = new RefcountTableEntry(table[index]);
            if (!entry.IsAllocated || !geometry.IsAligned(entry.Block.Bytes))
                continue;
            HostCluster own = geometry.ClusterOf(entry.Block);
            int ownIndex = geometry.RefcountTableIndex(own) == index ? geometry.RefcountBlockIndex(own) : -1;
            using (TablePin pin = await blocks.PinAsync(entry.Block))
            {
                if (!CountsNothingBut(pin.Table.Bytes, ownIndex))
                    continue;
            }
            table[index] = 0;
            map.RemoveRefcountBlock(entry.Block);
            blocks.Forget(entry.Block);
            if (ownIndex < 0)
                freed.Add(own, 1, discard: true); // another block counts it
        }
    }

    /// <summary>The first cluster behind all that have a refcount.</summary>
    public async ValueTask<HostCluster> FindEndAsync()
    {
        for (int index = table.Count - 1; index >= 0; index--)
        {
            var entry = new RefcountTableEntry(table[index]);
            if (!entry.IsAllocated)
                continue;
            using TablePin pin = await blocks.PinAsync(entry.Block);
            for (int i = geometry.RefcountBlockEntryCount - 1; i >= 0; i--)
            {
                if (RefcountBlock.Get(pin.Table.Bytes, geometry.RefcountOrder, i) != 0)
                    return new HostCluster(((long)index << geometry.RefcountBlockBits) + i + 1);
            }
        }
        return new HostCluster(geometry.ClusterCount(file.LengthBytes)); // a table that counts nothing says nothing
    }

    private bool CountsNothingBut(ReadOnlySpan<byte> block, int own)
    {
        if (own < 0)
            return !block.ContainsAnyExcept((byte)0);
        for (int i = 0; i < geometry.RefcountBlockEntryCount; i++)
        {
            if (i != own && RefcountBlock.Get(block, geometry.RefcountOrder, i) != 0)
                return false;
        }
        return true;
    }
}
