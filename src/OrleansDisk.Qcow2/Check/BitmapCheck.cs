using System.Buffers.Binary;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Qcow2.Check;

/// <summary>Counts what persistent bitmaps occupy: directory, tables, bits (qcow2 specification, "Bitmaps").</summary>
internal sealed class BitmapCheck(IBlockFile file, Header header, ReferenceCounts references, CheckLog log)
{
    private readonly TableReader _tableReader = new(file);

    public async Task CountAsync()
    {
        // Without the autoclear bit a program that does not know bitmaps wrote the image: they mean nothing any more.
        if (!header.Autoclear.HasFlag(AutoclearFeatures.Bitmaps))
            return;
        if (header.Find(HeaderExtensionType.Bitmaps) is not { } extension)
            return;
        BitmapsExtension bitmaps;
        try
        {
            bitmaps = BitmapsExtension.Parse(extension.Data, header.Geometry);
        }
        catch (Qcow2FormatException e)
        {
            references.MarkIncomplete();
            log.Corruption($"ERROR {e.Message}");
            return;
        }
        references.Add(bitmaps.Directory.Bytes, bitmaps.DirectoryBytes, ClusterUse.Bitmap);
        var entries = new EntryWindow(file, bitmaps.Directory.Bytes, BitmapEntry.FixedBytes);
        for (int index = 0; index < bitmaps.Count; index++)
        {
            if (entries.Position + BitmapEntry.FixedBytes > bitmaps.DirectoryBytes)
            {
                references.MarkIncomplete();
                log.Corruption($"ERROR bitmap directory ends before entry {index}");
                return;
            }
            var entry = BitmapEntry.Parse((await entries.PeekAsync()).Span);
            entries.Advance(entry.StoredBytes);
            await CountBitmapAsync(index, entry);
        }
    }

    private async Task CountBitmapAsync(int index, BitmapEntry entry)
    {
        if (entry.TableOffset > long.MaxValue || !header.Geometry.IsAligned((long)entry.TableOffset))
        {
            references.MarkIncomplete();
            log.Corruption($"ERROR bitmap {index} table offset=0x{entry.TableOffset:x}: not cluster aligned");
            return;
        }
        long bytes = (long)entry.TableEntryCount * sizeof(ulong);
        bool isShared = references.Add((long)entry.TableOffset, bytes, ClusterUse.Bitmap);
        if (!isShared)
            await CountTableAsync(index, (long)entry.TableOffset, entry.TableEntryCount);
    }

    private async Task CountTableAsync(int index, long table, uint entryCount)
    {
        long bytes = _tableReader.ReadableBytes(table, (long)entryCount * sizeof(ulong));
        for (long at = 0; at < bytes;)
        {
            ReadOnlyMemory<byte> window = await _tableReader.ReadAsync(table + at, bytes - at);
            for (int entry = 0; entry + sizeof(ulong) <= window.Length; entry += sizeof(ulong))
            {
                var bits = new BitmapTableEntry(BinaryPrimitives.ReadUInt64BigEndian(window.Span[entry..]));
                if (!bits.IsValid(header.Geometry))
                    log.Corruption($"ERROR bitmap {index} has an invalid bitmap table entry: {bits.Raw:x}");
                if (bits.HasCluster)
                    references.Add(bits.Cluster.Bytes, header.Geometry.ClusterBytes, ClusterUse.Bitmap);
            }
            at += window.Length;
        }
    }
}
