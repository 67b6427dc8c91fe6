using System.Buffers.Binary;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Qcow2.Check;

/// <summary>Counts what persistent bitmaps occupy: directory, tables, bits (qcow2 specification, "Bitmaps").</summary>
internal sealed class BitmapCheck(IBlockFile file, Header header, ReferenceCounts references, CheckLog log)
{
    private const int ExtensionBytes = 24;
    private const int DirectoryEntryBytes = 24;
    private const int MaxBitmapCount = 65535;
    private const long MaxDirectoryBytes = 64L << 20;
    private const ulong TableOffsetMask = 0x00ff_ffff_ffff_fe00;
    private const ulong AllOnesFlag = 1;

    private readonly TableReader _tableReader = new(file);

    public async Task CountAsync()
    {
        // Without the autoclear bit a program that does not know bitmaps wrote the image: they mean nothing any more.
        if (!header.Autoclear.HasFlag(AutoclearFeatures.Bitmaps))
            return;
        if (header.Find(HeaderExtensionType.Bitmaps) is not { } extension)
            return;
        if (extension.Data.Length != ExtensionBytes)
        {
            log.Corruption("ERROR bitmaps extension has an invalid length");
            return;
        }
        uint bitmapCount = BinaryPrimitives.ReadUInt32BigEndian(extension.Data);
        ulong directoryBytes = BinaryPrimitives.ReadUInt64BigEndian(extension.Data.AsSpan(8));
        ulong directory = BinaryPrimitives.ReadUInt64BigEndian(extension.Data.AsSpan(16));
        if (bitmapCount is 0 or > MaxBitmapCount || directoryBytes > MaxDirectoryBytes
            || directory > long.MaxValue || !header.Geometry.IsAligned((long)directory))
        {
            log.Corruption("ERROR bitmaps extension has an invalid bitmap count, directory offset or directory size");
            return;
        }
        references.Add((long)directory, (long)directoryBytes, ClusterUse.Bitmap);
        var entries = new EntryWindow(file, (long)directory, DirectoryEntryBytes);
        for (int index = 0; index < bitmapCount; index++)
        {
            if (entries.Position + DirectoryEntryBytes > (long)directoryBytes)
            {
                log.Corruption($"ERROR bitmap directory ends before entry {index}");
                return;
            }
            await CountBitmapAsync(index, entries);
        }
    }

    private async Task CountBitmapAsync(int index, EntryWindow entries)
    {
        ReadOnlyMemory<byte> entry = await entries.PeekAsync();
        ulong table = BinaryPrimitives.ReadUInt64BigEndian(entry.Span);
        uint tableEntryCount = BinaryPrimitives.ReadUInt32BigEndian(entry.Span[8..]);
        int nameBytes = BinaryPrimitives.ReadUInt16BigEndian(entry.Span[18..]);
        uint extraBytes = BinaryPrimitives.ReadUInt32BigEndian(entry.Span[20..]);
        entries.Advance((DirectoryEntryBytes + extraBytes + nameBytes + 7) & ~7L);
        if (table > long.MaxValue || !header.Geometry.IsAligned((long)table))
        {
            log.Corruption($"ERROR bitmap {index} table offset=0x{table:x}: not cluster aligned");
            return;
        }
        bool isShared = references.Add((long)table, (long)tableEntryCount * sizeof(ulong), ClusterUse.Bitmap);
        if (!isShared)
            await CountTableAsync(index, (long)table, tableEntryCount);
    }

    private async Task CountTableAsync(int index, long table, uint entryCount)
    {
        long bytes = _tableReader.ReadableBytes(table, (long)entryCount * sizeof(ulong));
        for (long at = 0; at < bytes;)
        {
            ReadOnlyMemory<byte> window = await _tableReader.ReadAsync(table + at, bytes - at);
            for (int entry = 0; entry + sizeof(ulong) <= window.Length; entry += sizeof(ulong))
            {
                ulong raw = BinaryPrimitives.ReadUInt64BigEndian(window.Span[entry..]);
                long offset = (long)(raw & TableOffsetMask);
                bool isSound = (raw & ~(TableOffsetMask | AllOnesFlag)) == 0
                    && (offset == 0 || (raw & AllOnesFlag) == 0) && header.Geometry.IsAligned(offset);
                if (!isSound)
                    log.Corruption($"ERROR bitmap {index} has an invalid bitmap table entry: {raw:x}");
                if (offset != 0)
                    references.Add(offset, header.Geometry.ClusterBytes, ClusterUse.Bitmap);
            }
            at += window.Length;
        }
    }
}
